"""Readers of structure collections: whatever people have, as CIF texts with a name each.

    folder            all its CIFs, those in folders below too; a run folder of ours: its results
    .tar .tar.gz .tgz .zip   all CIFs in it, read as a stream; nothing is unpacked to disk
    .csv .csv.gz .parquet    the column `cif`
    .cif              itself

Nothing vanishes: what cannot be read is an entry, too, with the reason in place of a text. Nothing is
executed, and no name in an archive becomes a path. Refuses to know what becomes of the texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.errors import InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

MAX_BYTES = 5_000_000
"""Of one CIF. The largest of 47,335 structures of open collections has 40,000."""
CIF_NAME = re.compile(r"\.(cif|mcif)(\.gz)?$", re.IGNORECASE)
"""Files that are taken from folders and archives."""
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
TABLES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Entry:
    """One crystal of a collection.

    Attributes:
        id: file name without its ending (with the folders above it, below the one that was named), or the id
            column of a table.
        text: its CIF; None where it cannot be read.
        problem: why not, in a few words; "" where it can.
    """

    id: str
    text: str | None
    problem: str = ""


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
    if name.endswith(ARCHIVES):
        from crystallm.sources.archive import read_archive

        return read_archive(place)
    if name.endswith(TABLES):
        from crystallm.sources.table import read_table

        return read_table(place)
    if CIF_NAME.search(name):
        from crystallm.sources.folder import read_file

        return iter([read_file(place, stem(place.name))])
    kinds = ", ".join((".cif", *ARCHIVES, *TABLES))
    raise InputError(f"{str(place)!r} is no collection by its name: give a folder, or a file of {kinds}")


def stem(name: str) -> str:
    """The name of a CIF without its ending."""
    return CIF_NAME.sub("", name)


def as_entry(name: str, content: bytes) -> Entry:
    """The crystal of a file's content."""
    if not content.strip():
        return Entry(name, None, "the file is empty")
    if b"\0" in content:
        return Entry(name, None, "the file is binary, not text")
    try:
        return Entry(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Entry(name, content.decode("latin-1"))  # old CIFs name authors so; symbols are ASCII anyway


def too_large(name: str, size: int) -> Entry:
    """What stands for a file that is not read for its size (bytes)."""
    return Entry(name, None, f"the file has {size / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB read")
