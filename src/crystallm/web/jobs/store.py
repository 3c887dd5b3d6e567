"""Jobs on disk, so that a restart loses no finished crystal.

    folder/jobs/ID/ask.json       what was asked, and when
    folder/jobs/ID/events.jsonl   all that happened, a line each: what the client that follows it is told
    folder/jobs/ID/search.jsonl   what a search has to know to be gone on with (see `search_log`)

A line is appended as it happens, whole or not at all; what a kill has left that is no line is dropped when
the job is read again. Knows lines; refuses to know what they say, but for the state of a job.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from crystallm.errors import CrystallmError
from crystallm.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


ID = re.compile(r"[A-Za-z0-9_-]{16}")
"""What a job's name looks like: nothing else becomes part of a path."""

ASK, EVENTS, SEARCH_LOG = "ask.json", "events.jsonl", "search.jsonl"

_TAIL = 4096  # bytes in which the last state of a job stands

INTERRUPTED = "interrupted"
"""The state of a job that the end of the server has cut short: it can be gone on with."""

OVER = ("done", "failed", "cancelled", INTERRUPTED)
"""States in which nothing more will happen, unless somebody goes on with an interrupted job."""


class Kept(NamedTuple):
    """A job as it is on disk; `origin` says which server it began on, as far as that decides the crystals."""

    id: str
    ask: dict[str, Any]
    created: float
    lines: list[str]
    origin: str


class Store:
    """The folder of a server.

    Args:
        folder: made if it is not there.

    Raises:
        CrystallmError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        files.check_place(folder)
        self._jobs = folder / "jobs"
        self._jobs.mkdir(parents=True, exist_ok=True)

    def create(self, name: str, ask: dict[str, Any], created: float, origin: str = "") -> None:
        """Note what was asked; raises a CrystallmError where the disk is full."""
        content = json.dumps({"ask": ask, "created": created, "origin": origin}, ensure_ascii=False)
        try:
            files.write_atomically(self._jobs / name / ASK, content.encode(), sync=False)
        except CrystallmError:
            self.delete(name)
            raise

    def append(self, name: str, line: str) -> None:
        """Note what happened.

        Raises:
            CrystallmError: the disk is full, or the folder is gone.
        """
        left = (line + "\n").encode()
        try:
            with (self._jobs / name / EVENTS).open("ab", buffering=0) as file:
                end = file.tell()
                try:
                    while left:  # a disk that is nearly full takes a part, and fails at the rest
                        left = left[file.write(left) :]
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise CrystallmError(f"the results cannot be kept: {error.strerror or error}") from error

    def read(self, name: str) -> Kept | None:
        """A job; None if there is none of this name."""
        if not ID.fullmatch(name):
            return None
        try:
            head = json.loads((self._jobs / name / ASK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        text = ""
        with contextlib.suppress(OSError):
            text = (self._jobs / name / EVENTS).read_text(encoding="utf-8", errors="replace")
        *lines, rest = text.split("\n")
        whole = [line for line in lines if _is_event(line)]
        if rest or len(whole) < len(lines):  # cut off in the middle
            with contextlib.suppress(CrystallmError):  # a full disk does not keep it from who reads
                self._rewrite(name, whole)
        return Kept(name, head["ask"], float(head["created"]), whole, str(head.get("origin", "")))

    def search_log(self, name: str) -> Path:
        """The file in which a search keeps what it needs to go on."""
        return self._jobs / name / SEARCH_LOG

    def has(self, name: str) -> bool:
        """Whether a job is kept."""
        return bool(ID.fullmatch(name)) and (self._jobs / name / ASK).exists()

    def _rewrite(self, name: str, lines: list[str]) -> None:
        content = "".join(f"{line}\n" for line in lines)
        files.write_atomically(self._jobs / name / EVENTS, content.encode(), sync=False)

    def names(self) -> Iterator[str]:
        """All jobs that are kept."""
        return (path.name for path in self._jobs.iterdir() if ID.fullmatch(path.name))

    def delete(self, name: str) -> None:
        """Forget a job."""
        if ID.fullmatch(name):
            shutil.rmtree(self._jobs / name, ignore_errors=True)

    def unfinished(self) -> list[Kept]:
        """Jobs that were under way when the server ended."""
        open_ones = (self.read(name) for name in self.names() if not self._is_over(name))
        return [kept for kept in open_ones if kept is not None]

    def _is_over(self, name: str) -> bool:
        """Whether the last line says so; there may be gigabytes of others."""
        try:
            with (self._jobs / name / EVENTS).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL))
                *_, last, rest = [b"", *file.read().split(b"\n")]
        except OSError:
            return False
        return not rest and state_of([last.decode(errors="replace")]) in OVER

    def sweep(self, hours: float, most: int, spared: set[str]) -> int:
        """Forget the oldest jobs.

        Args:
            hours: age from which they are forgotten.
            most: jobs that are kept.
            spared: jobs that are under way.

        Returns:
            How many.
        """
        ages = []
        for name in self.names():
            with contextlib.suppress(OSError):
                ages.append(((self._jobs / name / ASK).stat().st_mtime, name))
        ages.sort(reverse=True)
        eldest = time.time() - hours * 3600
        gone = [
            name
            for place, (when, name) in enumerate(ages)
            if (place >= most or when < eldest) and name not in spared
        ]
        for name in gone:
            self.delete(name)
        return len(gone)


def state_of(lines: list[str]) -> str:
    """The state that the last line of that kind tells; "" for none."""
    for line in reversed(lines):
        if line.startswith('{"event":"state"') and _is_event(line):
            return str(json.loads(line)["data"]["state"])
    return ""


def is_end(line: str) -> bool:
    """Whether a line tells a state in which nothing more will happen."""
    return state_of([line]) in OVER


def _is_event(line: str) -> bool:
    """Whether a line is whole."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and {"event", "data"} <= entry.keys()
