"""Read collections of structures, of any format, as texts with a name each.

    folder                     its CIFs, POSCARs, JSON and extended XYZ files, those in folders below too;
                               a run folder of ours: its results
    .tar .tar.gz .tgz .tar.bz2 .tar.xz .zip   CIFs and POSCARs, read as a stream; nothing is unpacked to disk
    .csv .parquet              the column `cif`, or `structure` (pymatgen's JSON), or those of OPTIMADE
    .json .jsonl .ndjson       pymatgen structures or entries that hold one, OPTIMADE, ASE, CIF texts
    .extxyz .xyz               frames that name their cell
    .db                        ASE's database (SQLite)
    .pkl                       a pickled list of (id, CIF), plain data alone
    .cif .vasp .poscar POSCAR* CONTCAR*       themselves; a CIF of several crystals: each of them

.csv, .json, .jsonl, .ndjson, .extxyz, .xyz, .pkl, CIFs and POSCARs may be packed (.gz). All but .pkl are
read as streams: memory does not grow with the collection. Nothing is dropped: a crystal that cannot be read
is an entry, too, with the reason in place of a text.

Nothing is executed, and no name in an archive becomes a path. Does not
depend on what becomes of the texts; `parsing` makes structures of them.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.errors import CrystallmError, InputError
from crystallm.lazy import resolve
from crystallm.sources.entry import (
    ARCHIVES,
    DATABASES,
    FRAMES,
    JSON,
    JSON_LINES,
    PICKLES,
    TABLES,
    Entry,
    NoCrystalsError,
    single_format,
    stem,
)
from crystallm.sources.formats.cif_and_poscar import read_file
from crystallm.storage.run_folder import FACTS, result_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_READERS = {
    ARCHIVES: "archives:read_archive",
    TABLES: "tables:read_table",
    JSON: "json_documents:read_json",
    JSON_LINES: "json_documents:read_lines",
    FRAMES: "extxyz_frames:read_frames",
    DATABASES: "ase_database:read_database",
    PICKLES: "pickles:read_pickle",
}
"""The reader of each kind of file that holds many crystals."""
WITH_COLUMNS = (TABLES, JSON, JSON_LINES)
"""Kinds of files with further columns."""


def read(path: str | os.PathLike[str], columns: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the crystals of a collection, in the order of their names, or of their rows.

    Args:
        path: see the module.
        columns: further columns of tables and JSON files, whose values the entries get.

    Raises:
        InputError: there is no such file, it is of another kind, damaged, a bomb, or holds no crystal.
    """
    place = Path(path)
    name = place.name.lower()
    if place.is_dir():
        return read_folder(place, columns)
    if not place.is_file():
        if place.exists():
            raise InputError(f"{str(place)!r} is a device or a pipe: give a file or a folder")
        raise InputError(f"no file or folder {str(place)!r}")
    kind = next((endings for endings in _READERS if name.endswith(endings)), None)
    if kind is not None:
        reader = _function(_READERS[kind])
        return reader(place, columns) if kind in WITH_COLUMNS else reader(place)
    if single_format(place.name):
        return read_file(place, stem(place.name))
    kinds = ", ".join(kind for kinds in ((".cif", ".vasp"), *_READERS) for kind in kinds)
    raise InputError(
        f"{str(place)!r} is no collection by its name: give a folder, a POSCAR, or a file of {kinds}"
    )


def _function(name: str) -> Callable[..., Iterator[Entry]]:
    found: Callable[..., Iterator[Entry]] = resolve(f"crystallm.sources.formats.{name}")
    return found


def read_cifs(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """Yield the crystals of a collection as CIFs: other formats are converted, in P1.

    Raises:
        InputError: as `read`.
    """
    return map(as_cif, read(path))


def as_cif(entry: Entry) -> Entry:
    """Return an entry as a CIF, or with the problem if it cannot be read."""
    if entry.format == "cif":
        return entry
    if entry.text is None:
        return replace(entry, format="cif")
    from crystallm.sources import parsing

    try:
        found = parsing.read(entry.text, entry.format)
        return replace(entry, text=parsing.to_cif(found.structure), format="cif", note="; ".join(found.notes))
    except CrystallmError as error:
        return replace(entry, text=None, problem=str(error), format="cif")


GATHERED = (*JSON, *JSON_LINES, *FRAMES)
"""Files of many crystals that are read in folders."""
LOOKED_AT = 20
"""Number of first entries that must include a crystal; else the file is of another kind, such as a log."""


def read_folder(folder: Path, columns: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the crystals of a folder by name; see `read`."""
    results = result_files(folder)
    if results:  # a run of ours: its rows in place of its files
        from crystallm.sources.formats.tables import read_table

        for path in results:
            yield from read_table(path, columns)
        return
    if (folder / FACTS).is_file():
        raise InputError(f"the folder {str(folder)!r} is a data set, prepared already: train on it as it is")
    found = False
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        for entry in _entries(path, name, columns):
            found = True
            yield entry
    if not found:
        raise NoCrystalsError(
            f"the folder {str(folder)!r} holds no CIF, POSCAR or other file of crystals, nor do those in it"
        )


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files, sorted by the parts of their names; links to folders are not followed."""
    todo = [(str(folder), True)]
    while todo:
        path, is_folder = todo.pop()
        if not is_folder:
            yield Path(path)
            continue
        try:
            with os.scandir(path) as found:
                items = [
                    (item.name, item.is_dir(follow_symlinks=False)) for item in found if _is_wanted(item)
                ]
        except OSError as error:
            raise InputError(f"the folder {path!r} cannot be read ({error.strerror})") from error
        todo += ((str(Path(path) / name), is_folder) for name, is_folder in sorted(items, reverse=True))


def _is_wanted(item: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):  # a link to itself is neither
        if item.is_dir():
            return not item.is_symlink()
    return bool(single_format(item.name) or item.name.lower().endswith(GATHERED))


def _no_file(path: Path) -> str:
    """Return why a path of a folder is not read; "" for a file."""
    if path.is_file():
        return ""
    if path.is_symlink():
        return "a link that leads to no file"
    return "a pipe, a socket or a device, which is not read"


def _entries(path: Path, name: str, columns: Sequence[str]) -> Iterator[Entry]:
    """Yield the crystals of a file of a folder; an error becomes an entry, too."""
    form = single_format(name)
    if problem := _no_file(path):
        yield Entry(stem(name) if form else name, None, problem, form or "cif")
        return
    try:
        if name.lower().endswith(GATHERED):
            yield from (replace(entry, id=f"{name}/{entry.id}") for entry in _gathered(read(path, columns)))
        elif form:
            yield from read_file(path, stem(name))
    except NoCrystalsError:
        return
    except InputError as error:
        yield Entry(stem(name) if form else name, None, str(error), form or "cif")


def _gathered(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Return the entries, or none if no crystal is among the first ones."""
    first = []
    for entry in islice(entries, LOOKED_AT):
        first.append(entry)
        if entry.text is not None:
            yield from chain(first, entries)
            return
