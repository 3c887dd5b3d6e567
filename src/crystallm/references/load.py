"""Load libraries: the one of this package, files of others, and collections of crystals."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.errors import InputError
from crystallm.references.library import Library, is_library

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

BUNDLED = Path(str(files("crystallm.references"))) / "data" / "library.parquet"
"""The library of this package."""


def load_library(paths: Sequence[str | os.PathLike[str]] = ()) -> Library:
    """Return the crystals of libraries and collections, joined.

    Args:
        paths: files that `crystallm references build` wrote, or anything that `sources.read` reads; none: the
            library of this package.

    Raises:
        InputError: there is no such file, or it cannot be read.
        CrystallmError: a file is damaged, or a collection holds no crystal.
    """
    return _load(tuple(map(str, paths or (BUNDLED,))))


@lru_cache(maxsize=2)
def _load(paths: tuple[str, ...]) -> Library:
    for path in paths:
        if not Path(path).exists():
            raise InputError(f"no library of known crystals {path!r}: see crystallm references build")
    stored = [path for path in paths if is_library(Path(path))]
    found = [Library.read(*stored)] if stored else []
    if len(stored) < len(paths):
        from crystallm.references.build import read_collection  # with all that compares crystals

        found += [read_collection(path) for path in paths if path not in stored]
    return Library.joined(found)


def fingerprint(library: Library) -> str:
    """Return a digest of the crystals of a library: of the lengths and bytes of all strings of a column."""
    import numpy as np
    import pyarrow as pa

    digest = hashlib.blake2b(digest_size=16)
    for name in ("id", "prototype", "elements", "numbers"):
        column = library.table.column(name).combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        _, bounds, values = column.buffers()
        if not len(column):
            continue
        ends = np.frombuffer(bounds, np.int32)[column.offset : column.offset + len(column) + 1]
        digest.update(np.diff(ends).tobytes())
        digest.update(memoryview(values)[ends[0] : ends[-1]])
    return digest.hexdigest()
