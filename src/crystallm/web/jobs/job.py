"""One job: its request, events and state, and the clients that wait for events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crystallm.errors import CrystallmError
from crystallm.web.jobs.store import FINAL_STATES, JobStore, StoredJob, last_state

_LOG = logging.getLogger(__name__)


class BusyError(CrystallmError):
    """The server has no slot for a request.

    Args:
        retry_after: seconds after which to try again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Job:
    """A job.

    Attributes:
        id: a name that cannot be guessed.
        request: plain values, see `schemas`.
        created: seconds since 1970.
        origin: version and weights that decide its crystals.
        events: JSON lines.
        state: of the last state event; "" before the first.
        task: that runs the job; None if it does not run.
        cancelled: whether a client has cancelled it.
    """

    def __init__(self, stored: StoredJob, address: str, store: JobStore) -> None:
        self.id, self.request, self.created, self.events, self.origin = stored
        self.address = address
        self.state = last_state(self.events)
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False
        self._store = store
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the state is final."""
        return self.state in FINAL_STATES

    @property
    def search_log(self) -> Path:
        """Journal of a search, from which it is resumed."""
        return self._store.search_log(self.id)

    def results(self) -> dict[str, Any]:
        """Return the results so far, those before an interruption included; see `combine_events`."""
        return combine_events(self.events)

    def add_event(self, event: str, data: dict[str, Any] | list[Any]) -> None:
        """Store an event and wake the clients that follow the job.

        Raises:
            CrystallmError: the disk is full.
        """
        line = json.dumps({"event": event, "data": data}, ensure_ascii=False, separators=(",", ":"))
        self._store.append(self.id, line)
        self.events.append(line)
        self.notify()

    def set_state(self, state: str, **more: Any) -> None:
        """Add a state event; if the disk is full, only for the clients that follow the job."""
        self.state = state
        data = {"state": state, "time": round(time.time(), 3), **more}
        try:
            self.add_event("state", data)
        except CrystallmError as error:
            _LOG.warning("job %s: %s", self.id, error)
            self.events.append(json.dumps({"event": "state", "data": data}, separators=(",", ":")))
            self.notify()

    def notify(self) -> None:
        """Wake the clients that follow the job."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, seconds: float) -> None:
        """Wait for `notify`, at most for the given time."""
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), seconds)


def combine_events(events: Sequence[str]) -> dict[str, Any]:
    """Return what the events of a job add up to.

    Returns:
        `state` and `crystals` in order; if events gave them, `total`, `note`, `message`, `progress`, `curve`.
    """
    results: dict[str, Any] = {"state": "queued", "crystals": []}
    crystals: dict[int, dict[str, Any]] = {}
    curve: list[Any] = []
    for line in events:
        entry = json.loads(line)
        event, data = entry["event"], entry["data"]
        if event == "state":
            results.pop("message", None)  # of an interruption, if the job was resumed
            results |= {name: value for name, value in data.items() if name != "time"}
        elif event == "crystal":
            crystals[data["number"]] = data
        elif event == "update":
            for update in data:
                crystals.setdefault(update["number"], {}).update(update)
        elif event == "progress":
            results["progress"] = data
        elif event == "curve":
            curve.append(data)
    results["crystals"] = [crystals[number] for number in sorted(crystals)]
    if curve:
        results["curve"] = curve
    return results
