"""Files as streams of bytes, compressed or not, with bounded size and one-line errors."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from crystallm.errors import InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_RATIO = 200
"""Maximum ratio of unpacked to packed size. CIFs pack to a tenth, equal ones to a hundredth."""
FREE_BYTES = 50_000_000
"""Unpacked size up to which any ratio is accepted, bytes."""

_PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@contextmanager
def telling(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn errors while a file is read into one line that names it."""
    wrong: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeDecodeError)
    try:
        yield
    except InputError:
        raise
    except (*wrong, *others) as error:
        raise broken(path, error) from error


def broken(path: Path, why: object) -> InputError:
    """Return the error of a truncated or damaged file."""
    return InputError(f"{str(path)!r} cannot be read to its end ({one_line(why)}): is it truncated?")


def most_bytes(path: Path) -> int:
    """Return the maximum unpacked size of a file, bytes."""
    return max(FREE_BYTES, MAX_RATIO * path.stat().st_size)


def bomb(path: Path) -> InputError:
    """Return the error of a file that unpacks to more."""
    return InputError(
        f"{str(path)!r} unpacks to more than {MAX_RATIO} times its size: that is no collection of crystals"
    )


class _Counted(io.RawIOBase):
    """The content of a packed file, up to its maximum size."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._left = most_bytes(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # bytearrays never come here
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise bomb(self._path)
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked if its name ends in .gz.

    Raises:
        InputError: from the block within, for whatever goes wrong there in reading.
    """
    with telling(path), _opened(path, gzip.open if path.name.lower().endswith(".gz") else None) as stream:
        yield stream


@contextmanager
def by_content(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked if its first bytes are those of gzip, bzip2 or xz."""
    with path.open("rb") as plain:
        head = plain.read(8)
    with _opened(
        path, next((opener for mark, opener in _PACKED.items() if head.startswith(mark)), None)
    ) as stream:
        yield stream


@contextmanager
def _opened(path: Path, opener: Callable[[Path], Any] | None) -> Iterator[BinaryIO]:
    if opener is None:
        with path.open("rb") as plain:
            yield plain
    else:
        with opener(path) as packed, io.BufferedReader(_Counted(packed, path), 1 << 16) as stream:
            yield stream


def lines(stream: BinaryIO, path: Path, max_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a file, with their ends.

    Raises:
        InputError: a line is longer than this number of bytes.
    """
    while line := stream.readline(max_bytes + 1):
        if len(line) > max_bytes:
            raise InputError(
                f"{str(path)!r} has a line of more than {max_bytes / 1e6:g} MB: that is no crystal"
            )
        yield line
