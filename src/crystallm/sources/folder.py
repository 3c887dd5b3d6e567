"""CIFs in a folder, and in the folders below it."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

from crystallm.errors import InputError
from crystallm.runs import RESULTS
from crystallm.sources import CIF_NAME, MAX_BYTES, Entry, as_entry, stem, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_folder(folder: Path) -> Iterator[Entry]:
    """The crystals of a folder by name; see `sources.read`."""
    if (folder / RESULTS).is_file():  # a run of ours: its rows in place of its files
        from crystallm.sources.table import read_table

        yield from read_table(folder / RESULTS)
        return
    paths = sorted(path for path in folder.rglob("*") if CIF_NAME.search(path.name) and path.is_file())
    if not paths:
        raise InputError(f"the folder {str(folder)!r} holds no CIF, nor do those in it")
    for path in paths:
        yield read_file(path, stem(path.relative_to(folder).as_posix()))


def read_file(path: Path, name: str) -> Entry:
    """The crystal of one file."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return too_large(name, size)
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as stream:
                content = stream.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                return Entry(name, None, f"the file unpacks to more than the {MAX_BYTES / 1e6:.0f} MB read")
        else:
            content = path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        return Entry(name, None, f"the file cannot be read: {getattr(error, 'strerror', None) or error}")
    return as_entry(name, content)
