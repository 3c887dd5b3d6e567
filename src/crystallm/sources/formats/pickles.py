"""Pickled lists of (id, CIF), as the original CrystaLLM keeps its data; nothing in them is run.

The unpickler looks up no class and no function, so that only plain data can be made: None, bools, numbers,
texts, bytes, lists, tuples, dicts and sets. It is Python's own one, not the faster one in C, which allocates
as much memory as a pickle claims to need for its references.
"""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from crystallm.errors import InputError, one_line
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, NoCrystalsError, clean, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BROKEN = (
    pickle.UnpicklingError, ValueError, struct.error, IndexError, KeyError, TypeError, OverflowError,
    AttributeError, MemoryError,
)  # fmt: skip
"""What unpickling raises on bytes that are not a pickle of plain data."""


class _BoundedStream:
    """A stream that reads at most MAX_BYTES at once, whatever length a pickle claims."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise self._too_long()
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(MAX_BYTES + 1)
        if len(line) > MAX_BYTES:
            raise self._too_long()
        return line

    def _too_long(self) -> InputError:
        return InputError(
            f"{str(self._path)!r} holds a text of more than {MAX_BYTES / 1e6:g} MB: that is no CIF"
        )


class _PlainUnpickler(pickle._Unpickler):  # noqa: SLF001 - see the module
    """Makes plain data alone."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(_BoundedStream(stream, path), encoding="latin-1")
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise InputError(
            f"{str(self._path)!r} holds {one_line(f'{module}.{name}', 100)}, which is not plain data: "
            "refused. Nothing of it was run; save the crystals as CSV or Parquet"
        )

    def get_extension(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError(f"extension {code}")


def read_pickle(path: Path) -> Iterator[Entry]:
    """Yield the crystals of a pickled list in its order; see `sources.read`.

    Raises:
        InputError: it holds more than plain data, is damaged, or is not a list.
        NoCrystalsError: the list is empty.
    """
    with streams.binary(path) as stream, streams.telling(path, *_BROKEN):
        items = _PlainUnpickler(stream, path).load()
    if not isinstance(items, list):
        raise InputError(f"{str(path)!r} is no pickled list of crystals: refused")
    if not items:
        raise NoCrystalsError(f"{str(path)!r} holds an empty list")
    for number, item in enumerate(items):
        yield _entry(item, str(number))


def _entry(item: Any, number: str) -> Entry:
    pair = item if isinstance(item, list | tuple) and len(item) == 2 else (number, item)
    name, text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in pair)
    if isinstance(name, int) and abs(name) < 10**18:
        name = str(name)
    if not isinstance(text, str) or not isinstance(name, str):
        return Entry(number, None, f"a {type(item).__name__} in place of a pair of id and CIF")
    if len(text) > MAX_BYTES:
        return too_large(clean(name), len(text), what="text")
    return Entry(clean(name), clean(text)) if text.strip() else Entry(clean(name), None, "the text is empty")
