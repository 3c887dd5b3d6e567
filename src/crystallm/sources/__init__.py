"""Readers of structure collections: whatever people have, as texts with a name each.

    folder                     its CIFs, POSCARs, JSON and extended XYZ files, those in folders below too;
                               a run folder of ours: its results
    .tar .tar.gz .tgz .tar.bz2 .tar.xz .zip   CIFs and POSCARs, read as a stream; nothing is unpacked to disk
    .csv .parquet              the column `cif`, or `structure` (pymatgen's JSON), or those of OPTIMADE
    .json .jsonl .ndjson       pymatgen structures or entries that hold one, OPTIMADE, ASE, CIF texts
    .extxyz .xyz               frames that name their cell
    .db                        ASE's database (SQLite)
    .pkl                       a pickled list of (id, CIF), plain data alone
    .cif .vasp .poscar POSCAR* CONTCAR*       themselves; a CIF of several crystals: each of them

.csv, .json, .jsonl, .ndjson, .extxyz, .xyz, .pkl, CIFs and POSCARs may be packed (.gz). All are read as
streams: memory does not grow with the collection. Nothing vanishes: what cannot be read is an entry, too,
with the reason in place of a text. Nothing is executed, and no name in an archive becomes a path. Refuses to
know what becomes of the texts; `parsing` makes structures of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

MAX_BYTES = 5_000_000
"""Of one crystal. The largest of 47,335 structures of open collections has 40,000."""
CIF_NAME = re.compile(r"\.(cif|mcif)(\.gz)?$", re.IGNORECASE)
POSCAR_NAME = re.compile(r"(?:^|/)(?:POSCAR|CONTCAR)[^/]*$|\.(?:vasp|poscar)(?:\.gz)?$", re.IGNORECASE)
"""Files of one crystal that are taken from folders and archives."""
_ENDING = re.compile(r"(?:\.(?:cif|mcif|vasp|poscar))?(?:\.gz)?$", re.IGNORECASE)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
TABLES = (".csv", ".csv.gz", ".parquet")
JSON = (".json", ".json.gz")
JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
FRAMES = (".extxyz", ".extxyz.gz", ".xyz", ".xyz.gz")
DATABASES = (".db",)
PICKLES = (".pkl", ".pkl.gz", ".pickle", ".pickle.gz")
_READERS = {
    ARCHIVES: "archive:read_archive",
    TABLES: "table:read_table",
    JSON: "documents:read_json",
    JSON_LINES: "documents:read_lines",
    FRAMES: "frames:read_frames",
    DATABASES: "database:read_database",
    PICKLES: "pickles:read_pickle",
}
"""For each kind of file that holds many crystals, what reads it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One crystal of a collection.

    Attributes:
        id: file name without its ending (with the folders above it, below the one that was named), or what
            the collection calls it, or its number there.
        text: the crystal, in `format`; None where it cannot be read.
        problem: why not, in a few words; "" where it can.
        format: `cif`, `poscar` or `extxyz`; or, as JSON, `pymatgen` (a Structure), `optimade` (attributes of
            a structure), `ase` (numbers, positions, cell, pbc). See `parsing`.
        split: the part of a data set that the collection says it belongs to; "" where it says nothing.
    """

    id: str
    text: str | None
    problem: str = ""
    format: str = "cif"
    split: str = ""


class NoCrystalsError(InputError):
    """A file that can be read, and holds no crystal: a folder that it stands in may hold some."""


def read(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The crystals of a collection, in the order of their names, or of their rows.

    Args:
        path: see the module.

    Raises:
        InputError: there is no such file, it is of another kind, damaged, a bomb, or holds no crystal.
    """
    place = Path(path)
    name = place.name.lower()
    if place.is_dir():
        from crystallm.sources.folder import read_folder

        return read_folder(place)
    if not place.is_file():
        raise InputError(f"no file or folder {str(place)!r}")
    reader = next((reader for endings, reader in _READERS.items() if name.endswith(endings)), None)
    if reader is not None:
        return _function(reader)(place)
    if single_format(place.name):
        from crystallm.sources.files import read_file

        return read_file(place, stem(place.name))
    kinds = ", ".join(kind for kinds in ((".cif", ".vasp"), *_READERS) for kind in kinds)
    raise InputError(
        f"{str(place)!r} is no collection by its name: give a folder, a POSCAR, or a file of {kinds}"
    )


def _function(name: str) -> Callable[[Path], Iterator[Entry]]:
    module, function = name.split(":")
    found: Callable[[Path], Iterator[Entry]] = getattr(import_module(f"{__name__}.{module}"), function)
    return found


def read_cifs(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The same, every crystal as a CIF: those of other formats are written as such, in P1.

    Raises:
        InputError: as `read`.
    """
    return map(as_cif, read(path))


def as_cif(entry: Entry) -> Entry:
    """The same crystal as a CIF; with a problem in place of a text where it is none."""
    if entry.format == "cif":
        return entry
    if entry.text is None:
        return replace(entry, format="cif")
    from crystallm.sources.parsing import to_cif

    try:
        return replace(entry, text=to_cif(entry.text, entry.format), format="cif")
    except CrystallmError as error:
        return replace(entry, text=None, problem=str(error), format="cif")


def read_prompts(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Names and texts of the prompts in an archive with a .txt each, as the original takes them.

    Raises:
        InputError: no such archive, a damaged one, a bomb, or a member that is no such text.
    """
    place = Path(path)
    if not place.is_file():
        raise InputError(f"no file {str(place)!r}")
    if not place.name.lower().endswith(ARCHIVES):
        raise InputError(f"{str(place)!r} is no archive by its name: give a file of {', '.join(ARCHIVES)}")
    from crystallm.sources.archive import read_texts

    return read_texts(place)


def single_format(name: str) -> str:
    """The format of a file that holds one crystal, by its name; "" for other files."""
    if CIF_NAME.search(name):
        return "cif"
    return "poscar" if POSCAR_NAME.search(name) else ""


def stem(name: str) -> str:
    """The name of a file of one crystal without its ending."""
    return _ENDING.sub("", name)


def too_large(name: str, size: int, form: str = "cif", what: str = "file") -> Entry:
    """What stands for a crystal that is not read for its size (bytes)."""
    problem = f"the {what} has {size / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB read"
    return Entry(name, None, problem, form)


def clean(value: Any) -> str:
    """A text that every encoding can write: half characters (of JSON, of pickles) are replaced."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
