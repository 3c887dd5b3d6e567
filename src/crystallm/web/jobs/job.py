"""One job: events, state, followers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.web.jobs import store as stores
from crystallm.web.jobs.store import OVER

if TYPE_CHECKING:
    from pathlib import Path

    from crystallm.web.jobs.store import Store


LOG = logging.getLogger(__name__)

SEARCH = "search"
"""The kind of jobs of which few are done at a time."""

REMEMBERED = 64  # finished jobs whose lines are kept in memory


class BusyError(CrystallmError):
    """There is no place for a further job.

    Args:
        message: one line.
        after: seconds after which to try again.
    """

    def __init__(self, message: str, after: int) -> None:
        super().__init__(message)
        self.after = after


class Job:
    """One job.

    Args:
        kept: as the disk has it.
        address: from which it was asked, as jobs are counted.
        store: where its lines are kept.

    Attributes:
        name: by which it is asked for; nobody guesses it.
        ask: what was asked, as plain values.
        created: when, seconds since 1970.
        origin: which server began it, as far as that decides the crystals.
        lines: its events.
        state: that of the last of them; "" before the first.
    """

    def __init__(self, kept: stores.Kept, address: str, store: Store) -> None:
        self.name, self.ask, self.created, self.lines, self.origin = kept
        self.address = address
        self.state = stores.state_of(self.lines)
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False
        self._store = store
        self._news = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in OVER

    @property
    def search_log(self) -> Path:
        """The file in which a search keeps what it needs to go on."""
        return self._store.search_log(self.name)

    def known(self) -> dict[str, Any]:
        """What has been found so far, before an interruption too; see `view`."""
        return view(self.lines)

    def tell(self, event: str, data: dict[str, Any] | list[Any]) -> None:
        """Note what has happened, on disk too, and tell who follows.

        Raises:
            CrystallmError: the disk is full.
        """
        line = json.dumps({"event": event, "data": data}, ensure_ascii=False, separators=(",", ":"))
        self._store.append(self.name, line)
        self.lines.append(line)
        self.stir()

    def enter(self, state: str, **more: Any) -> None:
        """Note a new state. That the disk is full does not keep it from those who follow."""
        self.state = state
        data = {"state": state, "time": round(time.time(), 3), **more}
        try:
            self.tell("state", data)
        except CrystallmError as error:
            LOG.warning("job %s: %s", self.name, error)
            self.lines.append(json.dumps({"event": "state", "data": data}, separators=(",", ":")))
            self.stir()

    def stir(self) -> None:
        """Wake those who follow: something has changed."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, seconds: float) -> None:
        """Wait until something happens, or for so long."""
        waiting = self._news
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting.wait(), seconds)


def view(lines: list[str]) -> dict[str, Any]:
    """What the events of a job add up to: its state, note, crystals in their order, progress, curve."""
    found: dict[str, Any] = {"state": "queued", "crystals": []}
    crystals: dict[int, dict[str, Any]] = {}
    curve: list[Any] = []
    for line in lines:
        entry = json.loads(line)
        event, data = entry["event"], entry["data"]
        if event == "state":
            found.pop("message", None)  # of an end that was none, since the job was gone on with
            found |= {name: value for name, value in data.items() if name != "time"}
        elif event == "crystal":
            crystals[data["number"]] = data
        elif event == "update":
            for one in data:
                crystals.setdefault(one["number"], {}).update(one)
        elif event == "progress":
            found["progress"] = data
        elif event == "curve":
            curve.append(data)
    found["crystals"] = [crystals[number] for number in sorted(crystals)]
    if curve:
        found["curve"] = curve
    return found
