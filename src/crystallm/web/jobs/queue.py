"""The queue of jobs, and the jobs that run, followed by clients and stored as events come.

A job is a list of events, each one JSON line, `{"event":..., "data":...}`. A client that follows a job gets
the lines; one that requests its state gets what they add up to (`combine_events`). All of this runs on one
event loop, without locks. Does not depend on how a job is run: a runner does that and calls `Job.add_event`.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import secrets
import time
from collections import Counter, OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError
from crystallm.web.jobs.job import BusyError, Job
from crystallm.web.jobs.store import INTERRUPTED, StoredJob, is_final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from crystallm.web.jobs.store import JobStore
    from crystallm.web.metrics import Metrics
    from crystallm.web.options import ServerLimits

_LOG = logging.getLogger(__name__)
_THREADED = ("search", "solve")  # kinds in threads of their own, of which only a few run at a time
_MAX_FINISHED = 64  # finished jobs whose events stay in memory
_SWEEP_SECONDS = 600.0
_TYPICAL_SECONDS = 4.0  # of a job, before any has run
_RESOURCES = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_CUT_SHORT = "the server ended before this job did: resume it for the rest"


class JobQueue:
    """All jobs of a server."""

    def __init__(
        self,
        store: JobStore,
        limits: ServerLimits,
        metrics: Metrics,
        runner: Callable[[Job], Awaitable[None]],
    ) -> None:
        self.limits = limits
        self._store = store
        self._metrics = metrics
        self._runner = runner
        self._waiting: deque[Job] = deque()
        self._active: dict[str, Job] = {}
        self._finished: OrderedDict[str, Job] = OrderedDict()
        self._by_address: Counter[str] = Counter()
        self._mean_seconds = _TYPICAL_SECONDS
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def n_waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Jobs that run."""
        return len(self._active) - len(self._waiting)

    def open(self) -> None:
        """Mark jobs that a former server left unfinished as interrupted, and start to delete old ones."""
        for stored in self._store.unfinished():
            Job(stored, "", self._store).set_state(INTERRUPTED, message=_CUT_SHORT)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Interrupt all jobs, which ends the streams of clients that follow them; take no further ones."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._waiting.clear()
        jobs = list(self._active.values())
        for job in jobs:
            if job.task is not None:
                job.task.cancel()
            else:
                self._end(job, INTERRUPTED, message="the server ended before this job started")
        await asyncio.gather(*(job.task for job in jobs if job.task is not None), return_exceptions=True)

    def submit(self, request: dict[str, Any], address: str, origin: str = "") -> Job:
        """Accept a request, as plain values, of a client network; `origin` as for `Job`.

        Raises:
            BusyError: too many jobs wait, or too many are of this address.
            CrystallmError: the disk is full.
        """
        self._require_slot(request, address)
        stored = StoredJob(secrets.token_urlsafe(12), request, time.time(), [], origin)
        self._store.create(stored.id, request, stored.created, origin)
        self._metrics.jobs_submitted.labels(request["kind"]).inc()
        job = Job(stored, address, self._store)
        self._enqueue(job)
        return job

    def resume(self, job: Job, address: str) -> None:
        """Enqueue an interrupted job again, with its results; a queued or running one is left as it is.

        Raises:
            ValueError: it is over for good.
        """
        if not job.is_over:
            return
        if job.state != INTERRUPTED:
            raise ValueError(f"a job that is {job.state} cannot be resumed")
        self._require_slot(job.request, address)
        self._finished.pop(job.id, None)
        job.address = address
        self._metrics.jobs_resumed.labels(job.request["kind"]).inc()
        self._enqueue(job)

    def _require_slot(self, request: dict[str, Any], address: str) -> None:
        """Raise a BusyError if no further job can be accepted."""
        if self._closed:
            raise BusyError("the server is being stopped: try again later", self._retry_after())
        n, n_waiting = self._by_address[address], len(self._waiting)
        if n >= self.limits.max_jobs_per_address:
            message = f"{n} jobs of your address are queued or running: wait until one ends"
            raise BusyError(message, self._retry_after())
        if n_waiting >= self.limits.max_waiting and not self._can_start(request):
            raise BusyError(f"{n_waiting} jobs are waiting already: try again later", self._retry_after())

    def _enqueue(self, job: Job) -> None:
        job.set_state("queued")
        self._active[job.id] = job
        self._by_address[job.address] += 1
        self._waiting.append(job)
        self._start_next()

    async def get(self, job_id: str) -> Job | None:
        """Return a job, active or stored; None if there is none."""
        if (job := self._in_memory(job_id)) is not None:
            return job
        stored = await asyncio.to_thread(self._store.read, job_id)
        if stored is None:
            return None
        if (job := self._in_memory(job_id)) is not None:  # read by another request meanwhile
            return job
        job = Job(stored, "", self._store)
        if not job.is_over:  # not active: the disk was full when it ended
            job.set_state(INTERRUPTED, message=_CUT_SHORT)
        self._remember(job)
        return job

    def _in_memory(self, job_id: str) -> Job | None:
        if job_id in self._active:
            return self._active[job_id]
        if job_id in self._finished:
            self._finished.move_to_end(job_id)
        return self._finished.get(job_id)

    def position(self, job: Job) -> int | None:
        """Return the position in the queue, from 1; None for a job that does not wait."""
        return self._waiting.index(job) + 1 if job in self._waiting else None

    def cancel(self, job: Job) -> None:
        """Cancel a job unless it is over; its results stay."""
        if job.is_over:
            return
        job.cancelled = True
        if job.task is not None:
            job.task.cancel()
        elif job in self._waiting:
            self._waiting.remove(job)
            self._end(job, "cancelled")
            self._notify_waiting()

    async def follow(self, job: Job, start: int, seconds: float = 15.0) -> AsyncIterator[tuple[int, str]]:
        """Yield the events of a job as (number, line) until it is over.

        Args:
            job: to follow; final states before it was resumed are left out.
            start: number of events that the client has already.
            seconds: after which an empty line keeps the connection alive. The position in the queue is an
                event without a number.
        """
        n_sent = min(start, len(job.events))
        sent_position: int | None = None
        while True:
            while n_sent < len(job.events):
                n_sent += 1
                line = job.events[n_sent - 1]
                if n_sent == len(job.events) or not is_final(line):
                    yield n_sent, line
            if job.is_over:
                return
            position = self.position(job)
            if position is not None and position != sent_position:
                sent_position = position
                yield 0, json.dumps({"event": "position", "data": {"position": position}})
            await job.wait_for_change(seconds)
            if len(job.events) == n_sent and self.position(job) == sent_position:
                yield 0, ""

    def _retry_after(self) -> int:
        """Return the seconds after which a slot is likely to be free."""
        turns = 1 + len(self._waiting) / self.limits.max_running
        return max(1, min(120, round(self._mean_seconds * turns)))

    def _can_start(self, request: dict[str, Any]) -> bool:
        """Whether a job could start now. Searches and patterns have fewer slots, and hold up no other."""
        if self.n_running >= self.limits.max_running:
            return False
        if request["kind"] not in _THREADED:
            return True
        running = [job.request["kind"] for job in self._active.values() if job.task is not None]
        return sum(map(running.count, _THREADED)) < self.limits.max_searches

    def _start_next(self) -> None:
        for job in tuple(self._waiting):
            if not self._can_start(job.request):
                continue
            self._waiting.remove(job)
            job.task = asyncio.create_task(self._run(job))
            job.task.add_done_callback(partial(self._task_ended, job))
        self._notify_waiting()

    def _task_ended(self, job: Job, _: asyncio.Task[None]) -> None:
        """End a job whose task was cancelled before it started."""
        if not job.is_over:
            self._end(job, "cancelled" if job.cancelled else INTERRUPTED)
            self._start_next()

    def _notify_waiting(self) -> None:
        for job in self._waiting:
            job.notify()

    async def _run(self, job: Job) -> None:
        start = time.monotonic()
        state: str = "done"
        more: dict[str, Any] = {}
        try:
            job.set_state("running")
            async with asyncio.timeout(self.limits.job_timeout):
                await self._runner(job)
        except asyncio.CancelledError:
            state = "cancelled" if job.cancelled else INTERRUPTED
        except TimeoutError:
            state = "failed"
            more = {"message": f"took longer than {self.limits.job_timeout:g} s: request less"}
        except Exception as error:  # noqa: BLE001 - a fault of one job must not end the server
            state, more = _end_of(job, error)
        self._mean_seconds += 0.1 * (time.monotonic() - start - self._mean_seconds)
        self._end(job, state, **more)
        self._start_next()

    def _end(self, job: Job, state: str, **more: Any) -> None:
        job.set_state(state, **more)
        self._metrics.jobs_finished.labels(state).inc()
        self._active.pop(job.id, None)
        self._by_address[job.address] -= 1
        if not self._by_address[job.address]:
            del self._by_address[job.address]
        self._remember(job)

    def _remember(self, job: Job) -> None:
        job.task = None
        self._finished[job.id] = job
        while len(self._finished) > _MAX_FINISHED:
            self._finished.popitem(last=False)

    async def _sweep(self) -> None:
        while True:
            hours, n, active = self.limits.keep_hours, self.limits.keep_jobs, set(self._active)
            if await asyncio.to_thread(self._store.sweep, hours, n, active):
                for job_id in list(self._finished):
                    if not self._store.has(job_id):
                        del self._finished[job_id]
            await asyncio.sleep(_SWEEP_SECONDS)


def _end_of(job: Job, error: Exception) -> tuple[str, dict[str, Any]]:
    """Return the state of a job that an error has ended, and facts for clients."""
    facts = _error_facts(job, error)
    if not _lacks_resources(error):
        return "failed", facts
    # The machine will have them again.
    return INTERRUPTED, {"message": f"{facts['message']}; resume the job for the rest"}


def _lacks_resources(error: BaseException) -> bool:
    """Whether an error comes of a full disk, of too many open files, or of too little memory."""
    if isinstance(error, BaseExceptionGroup):
        return any(_lacks_resources(part) for part in error.exceptions)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _RESOURCES):
        return True
    return error.__cause__ is not None and _lacks_resources(error.__cause__)


def _error_facts(job: Job, error: BaseException) -> dict[str, Any]:
    """Return the message of an error for clients, and the field that it names."""
    while isinstance(error, BaseExceptionGroup):  # of concurrent tasks
        error = error.exceptions[0]
    if isinstance(error, InputError):
        return {"message": str(error), "field": getattr(error, "field", None)}
    if isinstance(error, CrystallmError):
        return {"message": str(error)}
    if isinstance(error, OSError):
        _LOG.error("job %s: %s", job.id, error)  # which may name our paths
        return {"message": f"the server cannot go on: {error.strerror or 'error of the system'}"}
    _LOG.error("job %s failed", job.id, exc_info=error)
    return {"message": "internal error: see the log of the server"}
