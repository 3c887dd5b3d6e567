"""The crystals in a folder, and in the folders below it."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.dataset import FACTS
from crystallm.errors import InputError
from crystallm.sources import FRAMES, JSON, JSON_LINES, Entry, NoCrystalsError, read, single_format, stem
from crystallm.sources.files import read_file
from crystallm.storage.run_folder import result_files

if TYPE_CHECKING:
    from collections.abc import Iterator

GATHERED = (*JSON, *JSON_LINES, *FRAMES)
"""Files of many crystals that are read beside those of one."""
LOOKED_AT = 20
"""Entries among which there has to be a crystal, else such a file is of another kind, like a log."""


def read_folder(folder: Path) -> Iterator[Entry]:
    """The crystals of a folder by name; see `sources.read`."""
    results = result_files(folder)
    if results:  # a run of ours: its rows in place of its files
        from crystallm.sources.table import read_table

        for path in results:
            yield from read_table(path)
        return
    if (folder / FACTS).is_file():
        raise InputError(f"the folder {str(folder)!r} is a data set, prepared already: train on it as it is")
    found = False
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        for entry in _entries(path, name):
            found = True
            yield entry
    if not found:
        raise NoCrystalsError(
            f"the folder {str(folder)!r} holds no CIF, POSCAR or other file of crystals, nor do those in it"
        )


def _files(folder: Path) -> Iterator[Path]:
    """All files by the parts of their names; links to folders are not followed."""
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
    if item.is_dir():
        return not item.is_symlink()
    return item.is_file() and bool(single_format(item.name) or item.name.lower().endswith(GATHERED))


def _entries(path: Path, name: str) -> Iterator[Entry]:
    """The crystals of a file of a folder; what stops them is an entry, too."""
    form = single_format(name)
    try:
        if name.lower().endswith(GATHERED):
            yield from (replace(entry, id=f"{name}/{entry.id}") for entry in _gathered(read(path)))
        elif form:
            yield from read_file(path, stem(name))
    except NoCrystalsError:
        return
    except InputError as error:
        yield Entry(stem(name) if form else name, None, str(error), form or "cif")


def _gathered(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same entries; none where the first ones are no crystals."""
    first = []
    for entry in islice(entries, LOOKED_AT):
        first.append(entry)
        if entry.text is not None:
            yield from chain(first, entries)
            return
