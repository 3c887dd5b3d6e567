"""What is under way: jobs, the queue before them, and all that happens to them, told and kept as it happens.

A job is a list of events, each one line of JSON, `{"event":..., "data":...}`; a client that follows it gets
the lines, one that asks for its state what they add up to (`view`). The last event is a state in which
nothing more will happen, unless that is `interrupted` and somebody goes on with the job. All of this runs on
one event loop, without locks. Refuses to know how any kind of job is done: a runner does it, and says what
happens by `Job.tell`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter, OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError
from crystallm.web.jobs import store as stores
from crystallm.web.jobs.job import LOG, REMEMBERED, SEARCH, BusyError, Job
from crystallm.web.jobs.store import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from crystallm.web.jobs.store import Store
    from crystallm.web.metrics import Metrics
    from crystallm.web.rate_limits import Limits


_SWEEP_SECONDS = 600.0

_USUAL_SECONDS = 4.0  # of a job, before any has been seen

_CUT_SHORT = "the server ended before this job did: go on with it for the rest"


class Jobs:
    """All jobs of a server.

    Args:
        store: where they are kept.
        limits: of the server.
        metrics: counters.
        runner: does a job of any kind, and returns when it is done.
    """

    def __init__(
        self, store: Store, limits: Limits, metrics: Metrics, runner: Callable[[Job], Awaitable[None]]
    ) -> None:
        self.limits = limits
        self._store = store
        self._metrics = metrics
        self._runner = runner
        self._waiting: deque[Job] = deque()
        self._active: dict[str, Job] = {}
        self._past: OrderedDict[str, Job] = OrderedDict()
        self._by_address: Counter[str] = Counter()
        self._mean = _USUAL_SECONDS
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def n_waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Jobs that are being done."""
        return len(self._active) - len(self._waiting)

    def open(self) -> None:
        """Tell of jobs that a former server has left unfinished, and begin to forget old ones."""
        for kept in self._store.unfinished():
            Job(kept, "", self._store).enter(INTERRUPTED, message=_CUT_SHORT)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """End what is under way; it is told as interrupted."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._waiting.clear()
        jobs = list(self._active.values())
        for job in jobs:
            if job.task is not None:
                job.task.cancel()
            else:
                self._end(job, INTERRUPTED, message="the server ended before this job began")
        await asyncio.gather(*(job.task for job in jobs if job.task is not None), return_exceptions=True)

    def submit(self, ask: dict[str, Any], address: str, origin: str = "") -> Job:
        """Take a job on.

        Args:
            ask: what is asked.
            address: from which.
            origin: see `Job`.

        Raises:
            BusyError: too many wait, or too many are of this address.
            CrystallmError: the disk is full.
        """
        self._check_place(ask, address)
        job = Job(stores.Kept(secrets.token_urlsafe(12), ask, time.time(), [], origin), address, self._store)
        self._store.create(job.name, ask, job.created, origin)
        self._metrics.count("jobs_submitted", "Jobs taken on.", kind=str(ask["kind"]))
        self._queue(job)
        return job

    def resume(self, job: Job, address: str) -> None:
        """Go on with an interrupted job: it waits for its turn again, and keeps what it has found.

        Args:
            job: one that is under way is left as it is.
            address: that goes on with it.

        Raises:
            BusyError: as for `submit`.
            ValueError: it is over for good.
        """
        if not job.over:
            return
        if job.state != INTERRUPTED:
            raise ValueError(f"a job that is {job.state} cannot be gone on with")
        self._check_place(job.ask, address)
        self._past.pop(job.name, None)
        job.address = address
        self._metrics.count("jobs_resumed", "Interrupted jobs gone on with.", kind=str(job.ask["kind"]))
        self._queue(job)

    def _check_place(self, ask: dict[str, Any], address: str) -> None:
        """Whether there is a place for a further job; raises a BusyError if not."""
        after = self._after()
        if self._by_address[address] >= self.limits.per_address:
            raise BusyError(
                f"{self.limits.per_address} jobs of your address are under way: wait until one is done", after
            )
        if len(self._waiting) >= self.limits.waiting and not self._has_place(ask):
            raise BusyError(f"{len(self._waiting)} jobs are waiting already: try again later", after)

    def _queue(self, job: Job) -> None:
        """Let a job wait for its turn."""
        job.enter("queued")
        self._active[job.name] = job
        self._by_address[job.address] += 1
        self._waiting.append(job)
        self._begin()

    async def get(self, name: str) -> Job | None:
        """A job, under way or kept; None if there is none."""
        if (job := self._known(name)) is not None:
            return job
        kept = await asyncio.to_thread(self._store.read, name)
        if kept is None:
            return None
        if (job := self._known(name)) is not None:  # somebody else has read it meanwhile
            return job
        job = Job(kept, "", self._store)
        if not job.over:  # nobody is at it: the disk was full when it ended
            job.enter(INTERRUPTED, message=_CUT_SHORT)
        self._remember(job)
        return job

    def _known(self, name: str) -> Job | None:
        """A job that is in memory."""
        if name in self._active:
            return self._active[name]
        if name in self._past:
            self._past.move_to_end(name)
        return self._past.get(name)

    def position(self, job: Job) -> int | None:
        """Its place in the queue, from 1; None if it does not wait."""
        return self._waiting.index(job) + 1 if job in self._waiting else None

    def cancel(self, job: Job) -> None:
        """End a job, unless it is over; what it has found stays."""
        if job.over:
            return
        job.cancelled = True
        if job.task is not None:
            job.task.cancel()
        elif job in self._waiting:
            self._waiting.remove(job)
            self._end(job, "cancelled")
            self._stir_waiting()

    async def follow(self, job: Job, after: int, seconds: float = 15.0) -> AsyncIterator[tuple[int, str]]:
        """The events of a job as (number, line), those that have been first; no end that was none.

        Args:
            job: followed until it is over.
            after: events that the client has already.
            seconds: after which an empty line says that the connection stands; with the place in the queue,
                where it waits.
        """
        place = min(after, len(job.lines))
        told: int | None = None
        while True:
            while place < len(job.lines):
                place += 1
                line = job.lines[place - 1]
                if place == len(job.lines) or not stores.is_end(line):
                    yield place, line
            if job.over:
                return
            position = self.position(job)
            if position is not None and position != told:
                told = position
                yield 0, json.dumps({"event": "position", "data": {"position": position}})
            await job.news(seconds)
            if len(job.lines) == place and self.position(job) == told:
                yield 0, ""

    def _after(self) -> int:
        """Seconds after which a place is likely to be free."""
        turns = 1 + len(self._waiting) / self.limits.running
        return max(1, min(120, round(self._mean * turns)))

    def _has_place(self, ask: dict[str, Any]) -> bool:
        """Whether a job could begin now: searches are fewer at a time, and hold up no other kind."""
        if self.n_running >= self.limits.running:
            return False
        if ask["kind"] != SEARCH:
            return True
        running = [job.ask["kind"] for job in self._active.values() if job.task is not None]
        return running.count(SEARCH) < self.limits.searches

    def _begin(self) -> None:
        for job in tuple(self._waiting):
            if not self._has_place(job.ask):
                continue
            self._waiting.remove(job)
            job.task = asyncio.create_task(self._do(job))
            job.task.add_done_callback(partial(self._left, job))
        self._stir_waiting()

    def _left(self, job: Job, _: asyncio.Task[None]) -> None:
        """End a job whose task was cancelled before it could begin."""
        if not job.over:
            self._end(job, "cancelled" if job.cancelled else INTERRUPTED)
            self._begin()

    def _stir_waiting(self) -> None:
        for job in self._waiting:
            job.stir()

    async def _do(self, job: Job) -> None:
        begun = time.monotonic()
        state: str = "done"
        more: dict[str, Any] = {}
        try:
            job.enter("running")
            async with asyncio.timeout(self.limits.job_seconds):
                await self._runner(job)
        except asyncio.CancelledError:
            state = "cancelled" if job.cancelled else INTERRUPTED
        except TimeoutError:
            state = "failed"
            more = {"message": f"took longer than {self.limits.job_seconds:g} s: ask for less"}
        except Exception as error:  # noqa: BLE001 - a fault of one job must not end the server
            state, more = "failed", self._told(job, error)
        self._mean += 0.1 * (time.monotonic() - begun - self._mean)
        self._end(job, state, **more)
        self._begin()

    @staticmethod
    def _told(job: Job, error: BaseException) -> dict[str, Any]:
        """What a client is told of an error."""
        while isinstance(error, BaseExceptionGroup):  # of tasks that were done together
            error = error.exceptions[0]
        if isinstance(error, InputError):
            return {"message": str(error), "field": getattr(error, "field", None)}
        if isinstance(error, CrystallmError):
            return {"message": str(error)}
        LOG.error("job %s failed", job.name, exc_info=error)
        return {"message": "internal error: the server's log tells what"}

    def _end(self, job: Job, state: str, **more: Any) -> None:
        job.enter(state, **more)
        self._metrics.count("jobs_finished", "Jobs that are over.", state=state)
        self._active.pop(job.name, None)
        self._by_address[job.address] -= 1
        if not self._by_address[job.address]:
            del self._by_address[job.address]
        self._remember(job)

    def _remember(self, job: Job) -> None:
        job.task = None
        self._past[job.name] = job
        while len(self._past) > REMEMBERED:
            self._past.popitem(last=False)

    async def _sweep(self) -> None:
        while True:
            limits = self.limits
            spared = set(self._active)
            n = await asyncio.to_thread(self._store.sweep, limits.keep_hours, limits.keep_jobs, spared)
            if n:
                for name in list(self._past):
                    if not self._store.has(name):
                        del self._past[name]
            await asyncio.sleep(_SWEEP_SECONDS)
