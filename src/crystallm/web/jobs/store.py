"""Jobs on disk, so that a restart loses no finished crystal.

    folder/jobs/ID/request.json   the request, when it came, and which server took it
    folder/jobs/ID/events.jsonl   all events, a line each, as clients receive them
    folder/jobs/ID/search.jsonl   journal of a search (see `storage.journal`)

A line is appended as a whole or not at all. An incomplete line that a kill has left is removed when the job
is read again. Does not depend on the content of events, except for the state of a job.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crystallm.errors import CrystallmError
from crystallm.storage import files
from crystallm.storage.journal import append_bytes

ID = re.compile(r"[A-Za-z0-9_-]{16}")
"""Form of a job's id; nothing else becomes part of a path."""

REQUEST, EVENTS, SEARCH_LOG = "request.json", "events.jsonl", "search.jsonl"
_TAIL_BYTES = 4096  # enough for the last state event
INTERRUPTED = "interrupted"
"""State of a job that was cut short by the end of the server; it can be resumed."""

FINAL_STATES = ("done", "failed", "cancelled", INTERRUPTED)
"""States after which no event comes, unless an interrupted job is resumed."""


class StoredJob(NamedTuple):
    """A job on disk; `origin` names version and weights of the server that took it."""

    id: str
    request: dict[str, Any]
    created: float
    events: list[str]
    origin: str


class JobStore:
    """The folder of a server."""

    def __init__(self, folder: Path) -> None:
        files.check_place(folder)
        self._jobs = folder / "jobs"
        self._jobs.mkdir(parents=True, exist_ok=True)

    def create(self, job: str, request: dict[str, Any], created: float, origin: str = "") -> None:
        """Store a request; CrystallmError if the disk is full."""
        content = json.dumps({"request": request, "created": created, "origin": origin}, ensure_ascii=False)
        try:
            files.write_atomically(self._jobs / job / REQUEST, content.encode(), sync=False)
        except CrystallmError:
            self.delete(job)
            raise

    def append(self, job: str, line: str) -> None:
        """Append an event; CrystallmError if the disk is full or the folder was deleted."""
        try:
            append_bytes(self._jobs / job / EVENTS, f"{line}\n".encode())
        except CrystallmError as error:  # whose message has a path, which clients do not see
            reason = getattr(error.__cause__, "strerror", None) or "write error"
            raise CrystallmError(f"the results cannot be stored: {reason}") from error

    def read(self, job: str) -> StoredJob | None:
        """Return a job; None if there is none of this id."""
        if not ID.fullmatch(job):
            return None
        try:
            head = json.loads((self._jobs / job / REQUEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        text = ""
        with contextlib.suppress(OSError):
            text = (self._jobs / job / EVENTS).read_text(encoding="utf-8", errors="replace")
        *lines, rest = text.split("\n")
        events = [line for line in lines if _is_event(line)]
        if rest or len(events) < len(lines):  # an incomplete line
            content = "".join(f"{line}\n" for line in events).encode()
            with contextlib.suppress(CrystallmError):  # a full disk does not prevent reading
                files.write_atomically(self._jobs / job / EVENTS, content, sync=False)
        return StoredJob(job, head["request"], float(head["created"]), events, str(head["origin"]))

    def search_log(self, job: str) -> Path:
        """Return the path of a search's journal."""
        return self._jobs / job / SEARCH_LOG

    def has(self, job: str) -> bool:
        """Whether a job is stored."""
        return bool(ID.fullmatch(job)) and (self._jobs / job / REQUEST).exists()

    def ids(self) -> Iterator[str]:
        """Yield the ids of all stored jobs."""
        return (path.name for path in self._jobs.iterdir() if ID.fullmatch(path.name))

    def delete(self, job: str) -> None:
        """Delete a job."""
        if ID.fullmatch(job):
            shutil.rmtree(self._jobs / job, ignore_errors=True)

    def unfinished(self) -> list[StoredJob]:
        """Return the jobs that were queued or running when the server ended."""
        jobs = (self.read(job) for job in self.ids() if not self._is_over(job))
        return [job for job in jobs if job is not None]

    def _is_over(self, job: str) -> bool:
        """Whether the last event is a final state; only the end of the file is read."""
        try:
            with (self._jobs / job / EVENTS).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                *_, last, rest = [b"", *file.read().split(b"\n")]
        except OSError:
            return False
        return not rest and is_final(last.decode(errors="replace"))

    def sweep(self, keep_hours: float, max_jobs: int, active: set[str]) -> int:
        """Delete jobs older than `keep_hours` or not among the newest `max_jobs`; return how many."""
        ages = []
        for job in self.ids():
            with contextlib.suppress(OSError):
                ages.append(((self._jobs / job / REQUEST).stat().st_mtime, job))
        ages.sort(reverse=True)
        oldest = time.time() - keep_hours * 3600
        expired = [
            job
            for index, (created, job) in enumerate(ages)
            if (index >= max_jobs or created < oldest) and job not in active
        ]
        for job in expired:
            self.delete(job)
        return len(expired)


def last_state(events: Sequence[str]) -> str:
    """Return the state of the last state event; "" for none."""
    for line in reversed(events):
        if line.startswith('{"event":"state"') and _is_event(line):
            return str(json.loads(line)["data"]["state"])
    return ""


def is_final(event: str) -> bool:
    """Whether an event is a final state."""
    return last_state([event]) in FINAL_STATES


def _is_event(line: str) -> bool:
    """Whether a line is complete."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and {"event", "data"} <= entry.keys()
