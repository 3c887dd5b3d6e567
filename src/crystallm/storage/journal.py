"""The log of a search: a line of JSON for each text that was written, round by round, whole or not at all.

A round is appended in one piece and is on the disk before the next begins. What a kill has left half is cut
off when the search goes on, which then does that round again: nothing that was found is lost, and nothing is
there twice. One process at a time writes a log; another is refused. Refuses to know what the lines are about,
but for their round.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Journal:
    """A file of rounds.

    Args:
        path: of the file; None for a log that is forgotten.

    Attributes:
        rounds: what is in the file already.

    Raises:
        CrystallmError: it cannot be read or written, or is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rounds: list[list[dict[str, Any]]] = []
        self._size = self._length = 0  # bytes of the file, and of its whole rounds
        if path is not None and path.exists():
            self._read(path)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add a round.

        Args:
            records: JSON values; `round` and `of`, the number of lines in the round, are added to each.

        Raises:
            CrystallmError: the disk is full, or another process has changed the file.
        """
        number = len(self.rounds)
        lines = [{"round": number, "of": len(records), **record} for record in records]
        self.rounds.append(lines)
        if self._path is None:
            return
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        try:
            with self._path.open("ab") as file:
                self._mend(file)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritten(error) from error
        self._size = self._length = self._length + len(content)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from the file, where the system can.

        Raises:
            CrystallmError: one has it, or has changed it; it cannot be written.
        """
        if self._path is None:
            yield
            return
        with contextlib.ExitStack() as until:
            try:
                file = until.enter_context(self._path.open("ab"))
                _lock(file, self._path)
                self._mend(file)
            except OSError as error:
                raise self._unwritten(error) from error
            yield

    def _mend(self, file: BinaryIO) -> None:
        """Cut off what a kill has left half, and nothing that others have written since the file was read."""
        if os.fstat(file.fileno()).st_size != self._size:
            raise CrystallmError(
                f"{str(self._path)!r} has changed since it was read: does another process search there?"
            )
        if self._length < self._size:
            file.truncate(self._length)
            self._size = self._length

    def _unwritten(self, error: OSError) -> CrystallmError:
        return CrystallmError(f"{str(self._path)!r} cannot be written: {error.strerror or error}")

    def _read(self, path: Path) -> None:
        """Read whole rounds; what is behind them is cut off before more is written."""
        try:
            content = path.read_bytes()
            held: list[dict[str, Any]] = []
            held_bytes = 0
            for line in content.splitlines(keepends=True):
                try:
                    record = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    record = None
                if not isinstance(record, dict) or record.get("round") != len(self.rounds):
                    break
                held.append(record)
                held_bytes += len(line)
                if len(held) == record["of"]:
                    self.rounds.append(held)
                    self._length += held_bytes
                    held, held_bytes = [], 0
            later = f'{{"round": {len(self.rounds) + 1},'.encode()
            if later in content[self._length :]:  # not what a kill leaves
                raise CrystallmError(
                    f"{str(path)!r} is damaged in round {len(self.rounds)}: mend it, or choose another folder"
                )
            self._size = len(content)
        except OSError as error:
            raise CrystallmError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def _lock(file: BinaryIO, path: Path) -> None:
    """Take a file for as long as it is open, or until the process has gone.

    Raises:
        CrystallmError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: what others write is noticed before this process writes
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = f"another process searches in {str(path.parent)!r}"
        raise CrystallmError(f"{said}: wait for it, or choose another folder with --out") from None
    except OSError:  # a file system without locks: likewise
        return
