"""The log of a search: a line of JSON for each text that was written, round by round, whole or not at all.

A round is appended in one piece and is on the disk before the next begins. What a kill has left half is cut
off when the search goes on, which then does that round again: nothing that was found is lost, and nothing is
there twice. Refuses to know what the lines are about, but for their round.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Log:
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
        if path is not None and path.exists():
            self._read(path)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add a round.

        Args:
            records: JSON values; `round` and `of`, the number of lines in the round, are added to each.

        Raises:
            CrystallmError: the disk is full, or the file has gone.
        """
        number = len(self.rounds)
        lines = [{"round": number, "of": len(records), **record} for record in records]
        self.rounds.append(lines)
        if self._path is None:
            return
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        try:
            with self._path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CrystallmError(
                f"{str(self._path)!r} cannot be written: {error.strerror or error}"
            ) from error

    def _read(self, path: Path) -> None:
        """Read whole rounds, and cut off what is behind them."""
        try:
            content = path.read_bytes()
            length = 0
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
                    length += held_bytes
                    held, held_bytes = [], 0
            later = f'{{"round": {len(self.rounds) + 1},'.encode()
            if later in content[length:]:  # not what a kill leaves
                raise CrystallmError(
                    f"{str(path)!r} is damaged in round {len(self.rounds)}: mend it, or choose another folder"
                )
            if length < len(content):
                with path.open("r+b") as file:
                    file.truncate(length)
        except OSError as error:
            raise CrystallmError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
