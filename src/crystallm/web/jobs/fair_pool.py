"""Worker processes that clients share fairly, whatever their tasks cost.

Tasks wait here, not in the pool. A free process takes a task of the client whose tasks have taken the least
time, and among the jobs of this client a task of the job whose tasks have. A client that comes, or comes
back, starts level with the one that has had the least. The process of a cancelled task is ended at once.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crystallm.execution.mapping import max_attempts
from crystallm.execution.pool import ProcessPool
from crystallm.execution.tasks import TaskError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from crystallm.execution.tasks import Limits

    Owner = tuple[str, str]

OWNER: ContextVar[Owner] = ContextVar("OWNER", default=("", ""))
"""Client and job of the tasks that are submitted in this context."""


@dataclass(eq=False)
class _Ticket:
    """A task that waits or runs, and when it has started (s)."""

    owner: Owner
    granted: asyncio.Future[None]
    started: float = 0.0


@dataclass
class _Shares:
    """Seconds of process time that clients, or jobs, have had."""

    level: int  # which part of an owner shares
    used: dict[str, float] = field(default_factory=dict)

    def of(self, ticket: _Ticket, running: set[_Ticket], now: float) -> float:
        """Return the seconds of a ticket's client or job, those of its running tasks included."""
        name = ticket.owner[self.level]
        under_way = sum(now - other.started for other in running if other.owner[self.level] == name)
        return self.used.get(name, 0.0) + under_way

    def enter(self, ticket: _Ticket, present: set[str]) -> None:
        """Let a newcomer start level with the least of those that are present."""
        name = ticket.owner[self.level]
        if name not in present:
            floor = min((self.used.get(other, 0.0) for other in present), default=0.0)
            self.used = {other: self.used.get(other, 0.0) for other in present}
            self.used[name] = floor


class FairPool:
    """A process pool whose time is shared; see the module.

    Args:
        workers: processes that work at the same time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ProcessPool(workers)
        self._waiting: list[_Ticket] = []
        self._running: set[_Ticket] = set()
        self._shares = (_Shares(0), _Shares(1))

    def kill(self) -> None:
        """End the processes at once."""
        self._pool.kill()

    async def run(self, function: Callable[..., Any] | str, task: Any, limits: Limits) -> Any:
        """Return the value of a function of one JSON value; raises as a future of `ProcessPool.submit_task`.

        Cancelling this ends the process of the task.
        """
        for attempt in itertools.count(1):
            async with self._turn():
                future = self._pool.submit_task(function, task, limits)
                try:
                    return await asyncio.wrap_future(future)
                except asyncio.CancelledError:
                    self._pool.stop_task(future)
                    raise
                except TaskError as error:
                    if attempt >= max_attempts(1, lost=error.lost):
                        raise
        raise AssertionError

    async def call(self, function: Callable[[ProcessPool], Any]) -> Any:
        """Return the value of a function that uses all processes itself, in a thread.

        Cancelling this ends the processes, so that the function ends as well.
        """
        async with self._turn():
            pool = self._pool
            try:
                return await asyncio.to_thread(function, pool)
            except asyncio.CancelledError:
                self._pool = ProcessPool(self._workers)
                pool.kill()
                raise

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a process, and charge the owner for the time it is held."""
        ticket = _Ticket(OWNER.get(), asyncio.get_running_loop().create_future())
        for shares in self._shares:
            shares.enter(ticket, {t.owner[shares.level] for t in (*self._waiting, *self._running)})
        self._waiting.append(ticket)
        self._grant()
        try:
            await ticket.granted
            yield
        finally:
            if ticket in self._running:
                self._running.remove(ticket)
                seconds = time.monotonic() - ticket.started
                for shares in self._shares:
                    shares.used[ticket.owner[shares.level]] += seconds
            else:
                self._waiting.remove(ticket)
            self._grant()

    def _grant(self) -> None:
        while len(self._running) < self._workers:
            # A cancelled ticket stays until its own task takes it away.
            waiting = [ticket for ticket in self._waiting if not ticket.granted.cancelled()]
            if not waiting:
                return
            now = time.monotonic()
            had = {
                ticket: tuple(shares.of(ticket, self._running, now) for shares in self._shares)
                for ticket in waiting
            }
            ticket = min(waiting, key=had.__getitem__)  # of equals, the first that came
            self._waiting.remove(ticket)
            self._running.add(ticket)
            ticket.started = now
            ticket.granted.set_result(None)
