"""Executors: worker processes that can be killed, or this process."""

from __future__ import annotations

import atexit
import itertools
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from crystallm.errors import InputError
from crystallm.execution.process import Process
from crystallm.execution.tasks import (
    DEFAULT_LIMITS,
    Function,
    Limits,
    TaskError,
    name_of,
    resolve_function,
)


@dataclass
class _RunningTask:
    """A task of a pool: the process that runs it, and whether it is to end."""

    process: Process | None = None
    stopped: bool = False


class ProcessPool(Executor):
    """Worker processes of this machine, each task with limits of time and memory.

    A process serves further tasks of the same memory limit, and is replaced after a failure. Tasks and values
    travel as JSON. Use it as a context manager: an exception that leaves the body, Ctrl-C for example, kills
    all processes.

    Args:
        workers: processes that work at the same time; each holds its numerical libraries to one thread.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InputError(f"{workers=} must be positive")
        self.workers = workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="crystallm-pool")
        self._lock = threading.Lock()
        self._alive: set[Process] = set()
        self._idle: list[Process] = []
        self._runs: WeakKeyDictionary[Future[Any], _RunningTask] = WeakKeyDictionary()
        self.killed = False

    def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on one JSON value, with the default limits; see `submit_task`."""
        if len(args) != 1 or kwargs:
            raise InputError(f"a task is one JSON value, not {len(args) + len(kwargs)}: put them into a dict")
        return self.submit_task(function, args[0])

    def submit_task(self, function: Function, task: Any, limits: Limits = DEFAULT_LIMITS) -> Future[Any]:
        """Run a function on one JSON value.

        Args:
            function: of a module, which a fresh process can import; or its name, `package.module:name`.

        Returns:
            A future of the function's value, a JSON value. Its exception is a TaskError after a crash, a
            limit or an exception of the function, and a WorkerStartError if it cannot be imported.

        Raises:
            InputError: the function has no name to import it by.
            BrokenExecutor: the pool was killed.
            RuntimeError: the pool was shut down.
        """
        name = name_of(function)
        if self.killed:
            raise BrokenExecutor("the pool was killed")
        run = _RunningTask()
        future = self._threads.submit(self._run, run, name, task, limits)
        self._runs[future] = run
        return future

    def stop_task(self, future: Future[Any]) -> None:
        """Cancel a task of `submit_task`; if it runs, its process is ended at once."""
        run = self._runs.get(future)
        if future.cancel() or run is None:
            return
        with self._lock:
            run.stopped = True
            if run.process is not None:
                run.process.stop()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when all submitted tasks are done."""
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if not wait:
            threading.Thread(target=self.shutdown, daemon=True).start()
            return
        try:
            self._threads.shutdown(wait=True)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the processes at once."""
        with self._lock:
            self.killed = True
            alive = list(self._alive)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in alive:
            process.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.shutdown()

    def _run(self, run: _RunningTask, name: str, task: Any, limits: Limits) -> Any:
        process = self._take(run, name, limits.memory_gb)
        try:
            process.load(name)
            return process.run(task, limits.seconds)
        finally:
            self._give_back(run, process)

    def _take(self, run: _RunningTask, name: str, memory_gb: float | None) -> Process:
        """Return a process of this memory limit: an idle one, best of this function, or else a new one."""
        with self._lock:
            if self.killed or run.stopped:
                raise TaskError("the pool was shut down" if self.killed else "the task was stopped")
            idle = [process for process in self._idle if process.memory_gb == memory_gb]
            process = next((p for p in idle if p.function == name), idle[-1] if idle else None)
            if process is None:
                taken = {p.index for p in self._alive if p.memory_gb == memory_gb}
                process = Process(memory_gb, next(i for i in itertools.count() if i not in taken))
                self._alive.add(process)
            else:
                self._idle.remove(process)
            run.process = process
        return process

    def _give_back(self, run: _RunningTask, process: Process) -> None:
        with self._lock:
            run.process = None
            if process.dead:
                self._alive.discard(process)
            else:
                self._idle.append(process)


@cache
def worker_pool(workers: int = 1) -> ProcessPool:
    """Return the pool of a worker whose tasks need processes themselves; it lasts as long as the worker."""
    pool = ProcessPool(workers)
    atexit.register(pool.kill)
    return pool


class Inline(Executor):
    """Runs each call at once, in this process and without limits."""

    def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function now; the future holds what it raises."""
        future: Future[Any] = Future()
        try:
            future.set_result(resolve_function(function)(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future's reader decides
            future.set_exception(error)
        return future
