"""Executors: worker processes, or this process."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError
from crystallm.execution.process import Process
from crystallm.execution.tasks import TaskError, WorkerStartError, name_of, resolve_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    Function = Callable[..., Any] | str


class Pool(Executor):
    """Processes of this machine that can be lost, as an executor.

    The process of a task is kept for further ones and started anew after a loss. Tasks and values travel as
    JSON. Use it as a context manager: where its body is left by an exception, Ctrl-C too, all is killed.

    Args:
        workers: processes at a time; each holds its numerical libraries to one thread.
        seconds: limit for one task, start of the process not counted.
        memory_gb: limit of a process's address space, GiB (where the system knows one: Linux); None for
            none. A GPU's driver asks for more addresses than any machine has memory.

    Raises:
        InputError: a number of workers or seconds that is not positive.
    """

    def __init__(self, workers: int, *, seconds: float, memory_gb: float | None = 4.0) -> None:
        if workers < 1 or not seconds > 0:
            raise InputError(f"{workers=} and {seconds=} must both be positive")
        self.seconds = seconds
        self.memory_gb = memory_gb
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="crystallm-pool")
        self._lock = threading.Lock()
        self._alive: set[Process] = set()
        self._idle: list[Process] = []
        self._killed = False

    def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on one JSON value.

        Args:
            function: of a module, which a fresh process can import; or its name, `package.module:name`.
            args: the value.
            kwargs: none.

        Returns:
            A future of the function's value, a JSON value. Its exception is a LostError after a crash, a
            limit or an exception of the function, and a StartError where the function cannot be imported.

        Raises:
            InputError: a function that has no name to import it by; more or less than one value.
        """
        if len(args) != 1 or kwargs:
            raise InputError(f"a task is one JSON value, not {len(args) + len(kwargs)}: put them into a dict")
        return self._threads.submit(self.call, name_of(function), args[0], self.seconds)

    def call(self, name: str, task: Any, seconds: float) -> Any:
        """The value of a function by name, with a limit of its own for this task; see `submit`."""
        process = self._take(name)
        try:
            return process.ask(task, seconds)
        finally:
            self._give_back(process)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when what was submitted is done.

        Args:
            wait: return only then.
            cancel_futures: let go of what has not begun.
        """
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if not wait:
            threading.Thread(target=self.shutdown, daemon=True).start()
            return
        try:
            self._threads.shutdown(wait=True)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the processes now, whatever they are doing."""
        with self._lock:
            self._killed = True
            alive = list(self._alive)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in alive:
            process.stop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        self.shutdown()

    def _take(self, name: str) -> Process:
        """A process that has loaded the function: one that has it already, else any, else a new one."""
        with self._lock:
            if self._killed:
                raise TaskError("the pool was shut down")
            fitting = (process for process in self._idle if process.function == name)
            process = next(fitting, self._idle[-1] if self._idle else None)
            if process is None:
                taken = {other.number for other in self._alive}
                process = Process(self.memory_gb, next(i for i in itertools.count() if i not in taken))
                self._alive.add(process)
            else:
                self._idle.remove(process)
        try:
            process.load(name)
        except WorkerStartError:
            self._give_back(process)
            raise
        return process

    def _give_back(self, process: Process) -> None:
        with self._lock:
            if process.dead:
                self._alive.discard(process)
            else:
                self._idle.append(process)


class Inline(Executor):
    """Runs each call at once, in this process and without limits."""

    def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function now; what it raises is in the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(resolve_function(function)(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future's reader decides
            future.set_exception(error)
        return future
