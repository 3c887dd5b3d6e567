"""Append-only files of JSON Lines that survive a kill.

`append_records` adds lines in one piece, `read_records` leaves out an incomplete last line. A `Journal` holds
rounds of records: a round is on disk before the next one starts, and an incomplete last round is cut off when
the run resumes. Only one process at a time may write a journal. Does not depend on what the records hold.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from crystallm.errors import CrystallmError
from crystallm.storage.files import locked, saying, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    Record = dict[str, Any]


def encode(records: Iterable[Record]) -> bytes:
    """Return records as JSON Lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def read_records(path: Path) -> list[Record]:
    """Return the records of a file, up to an incomplete last line; none if the file does not exist.

    Raises:
        CrystallmError: the file cannot be read, or an earlier line is no record.
    """
    if not path.exists():
        return []
    with saying(f"{str(path)!r} cannot be read"):
        lines = path.read_bytes().splitlines(keepends=True)
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise CrystallmError(f"{str(path)!r} is damaged in line {number}: repair it, or delete it")
    return records


def append_records(path: Path, records: Iterable[Record], *, sync: bool = False) -> None:
    """Append records to a file; where that fails, the file is as it was.

    Args:
        sync: wait until the disk has them, so that they survive a loss of power.

    Raises:
        CrystallmError: the disk is full, or the folder is gone.
    """
    append_bytes(path, encode(records), sync=sync)


def append_bytes(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Append complete lines to a file; as `append_records`."""
    with saying(f"{str(path)!r} cannot be written"), path.open("ab", buffering=0) as file:
        _append(file, content, sync=sync)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a file of these records alone; raises as `write_atomically`."""
    write_atomically(path, encode(records))


def _record(line: bytes) -> Record | None:
    """Return the record of a line; None where it is incomplete or no JSON object."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _append(file: BinaryIO, content: bytes, *, sync: bool) -> None:
    """Append to an unbuffered file all of the content or nothing."""
    end = file.seek(0, os.SEEK_END)
    left = memoryview(content)
    try:
        while left:  # a disk that is nearly full takes a part, and fails at the rest
            left = left[file.write(left) :]
        if sync:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


class Journal:
    """A file of rounds of records.

    Args:
        path: of the file; None keeps the rounds in memory.

    Raises:
        CrystallmError: the file cannot be read or written, or is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rounds: list[list[Record]] = []
        self._size = self._length = 0  # bytes of the file, and of its complete rounds
        if path is not None and path.exists():
            self._read(path)

    def append(self, records: Sequence[Record]) -> None:
        """Add a round.

        Args:
            records: JSON values; `round` and `of`, the number of records in the round, are added to each.

        Raises:
            CrystallmError: the disk is full, or another process has changed the file.
        """
        number = len(self.rounds)
        lines = [{"round": number, "of": len(records), **record} for record in records]
        self.rounds.append(lines)
        if self._path is None:
            return
        content = encode(lines)
        with saying(f"{str(self._path)!r} cannot be written"), self._path.open("ab", buffering=0) as file:
            self._repair(file)
            _append(file, content, sync=True)
        self._size = self._length = self._length + len(content)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing the file, where the file system has locks.

        Raises:
            CrystallmError: another process holds the file or has changed it; it cannot be written.
        """
        if self._path is None:
            yield
            return
        with locked(self._path):
            with saying(f"{str(self._path)!r} cannot be written"), self._path.open("ab", buffering=0) as file:
                self._repair(file)
            yield

    def _repair(self, file: BinaryIO) -> None:
        """Cut off an incomplete round, but nothing that others have written since the file was read."""
        if os.fstat(file.fileno()).st_size != self._size:
            raise CrystallmError(
                f"{str(self._path)!r} has changed since it was read: is another process writing it?"
            )
        if self._length < self._size:
            file.truncate(self._length)
            self._size = self._length

    def _read(self, path: Path) -> None:
        """Read complete rounds; what follows them is cut off before more is written."""
        with saying(f"{str(path)!r} cannot be read"):
            content = path.read_bytes()
        self._size = len(content)
        records: list[Record] = []
        n_bytes = 0
        for line in content.splitlines(keepends=True):
            record = _record(line)
            if record is None or record.get("round") != len(self.rounds):
                break
            records.append(record)
            n_bytes += len(line)
            if len(records) == record["of"]:
                self.rounds.append(records)
                self._length += n_bytes
                records, n_bytes = [], 0
        later = f'{{"round": {len(self.rounds) + 1},'.encode()
        if later in content[self._length :]:  # not what a kill leaves
            raise CrystallmError(
                f"{str(path)!r} is damaged in round {len(self.rounds)}: repair it, or choose another folder"
            )
