"""Worker processes that can be lost: a limit of time and memory for each task, results in order.

One freak crystal makes the libraries that judge it run for minutes or ask for 20 GB. Here each task runs in a
process of its own kind, which is killed when the task takes too long; that costs this task its result, and
nothing else. Tasks and results are JSON, one a line over a pipe, so nothing is pickled, the caller's script
is not imported again, and threads of the caller (torch's, for one) are never forked. This module refuses to
know what a task is about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START_SECONDS = 180.0
"""How long a worker may take to import what it needs, on a busy machine."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What stands in the place of a result that could not be had.

    Attributes:
        reason: why, in a few words: the limit that was passed, or the error that was raised.
    """

    reason: str


def run(
    function: str,
    tasks: Sequence[Any],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
    on_done: Callable[[int], None] | None = None,
) -> list[Any]:
    """Apply a function to every task in processes that can be lost.

    Args:
        function: `package.module:name` of a function from one JSON value to one JSON value.
        tasks: JSON values, taken in order.
        workers: processes at a time; each holds its numerical libraries to one thread.
        seconds: limit for one task, start of the process not counted.
        memory_gb: limit of a process's address space, GiB (where the system knows one: Linux).
        on_done: called with the task's index after each, from the worker's thread.

    Returns:
        One result a task, in the order of the tasks; `Lost` where the process died, ran out of time or
        memory, or the function raised.

    Raises:
        InputError: a number of workers or seconds that is not positive.
        CrystallmError: a worker could not even start.
    """
    if workers < 1 or not seconds > 0:
        raise InputError(f"{workers=} and {seconds=} must both be positive")
    results: list[Any] = [Lost("not run")] * len(tasks)
    todo = iter(range(len(tasks)))
    lock = threading.Lock()
    alive: set[_Worker] = set()

    def keep_one_busy() -> None:
        worker: _Worker | None = None
        try:
            while True:
                with lock:
                    i = next(todo, None)
                if i is None:
                    return
                if worker is None:
                    worker = _Worker(function, memory_gb)
                    with lock:
                        alive.add(worker)
                results[i] = worker.ask(tasks[i], seconds)
                if worker.dead:
                    with lock:
                        alive.discard(worker)
                    worker = None
                if on_done is not None:
                    on_done(i)
        finally:
            if worker is not None:
                worker.stop()

    threads = ThreadPoolExecutor(max(1, min(workers, len(tasks))))
    try:
        for future in [threads.submit(keep_one_busy) for _ in range(min(workers, len(tasks)))]:
            future.result()
    finally:
        with lock:  # after an error or Ctrl-C: hand out no more tasks, and end the ones that run
            todo = iter(())
            for worker in alive:
                worker.stop()
        threads.shutdown()
    return results


class _Worker:
    """One process and the pipes to it. Used from one thread, stopped from any.

    Args:
        function: as in `run`.
        memory_gb: as in `run`.

    Raises:
        CrystallmError: the process did not come up.
    """

    def __init__(self, function: str, memory_gb: float) -> None:
        # One thread each: side by side, two OpenMP pools bring each other down to a tenth.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = os.pathsep.join(folder for folder in sys.path if folder)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from crystallm.workers import serve; serve()", function, str(memory_gb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=os.environ | single | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
        )
        self.dead = False
        line, _ = self._line(START_SECONDS)
        greeting = json.loads(line) if line else {"error": f"exit code {self._process.wait()}"}
        if "error" in greeting:
            self.stop()
            raise CrystallmError(f"a worker process for {function} did not start: {greeting['error']}")

    def ask(self, task: Any, seconds: float) -> Any:
        """The function's value for this task, or `Lost`; after a `Lost` by limit or death, `dead` is set."""
        try:
            self._stdin.write(json.dumps(task) + "\n")
            self._stdin.flush()
        except OSError:  # it died between two tasks; the reading below says so
            pass
        line, late = self._line(seconds)
        if line:
            answer: dict[str, Any] = json.loads(line)
            if late:  # the answer and the limit crossed: the answer counts, the process is gone
                self.stop()
            if not answer.get("last", False):
                return Lost(answer["error"]) if "error" in answer else answer["value"]
            reason = str(answer["error"])
        elif late:
            reason = f"took longer than {seconds:g} s"
        else:
            reason = f"the worker process died with code {self._process.wait()}"
        self.stop()
        return Lost(reason)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.dead = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError, ValueError):  # what it never read, it cannot be told any more
                    pipe.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    def _line(self, seconds: float) -> tuple[str, bool]:
        """The next line it writes ("" at its end), and whether the limit ended it."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # closed by stop() from another thread
            line = ""
        finally:
            timer.cancel()
        return line if line.endswith("\n") else "", late.is_set()


def serve() -> None:
    """The worker's side: read tasks from standard input until it ends, write answers to standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    name, memory_gb = sys.argv[1:3]

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    try:
        module, _, attribute = name.partition(":")
        function = getattr(import_module(module), attribute)
        _limit_memory(float(memory_gb))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to hear it
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({})
    for line in sys.stdin:
        try:
            say({"value": function(json.loads(line))})
        except MemoryError:  # what is left of this process can't be trusted
            say({"error": f"needed more than {memory_gb} GiB of memory", "last": True})
            return
        except Exception as error:  # noqa: BLE001 - one task's failure is that task's result
            say({"error": f"{type(error).__name__}: {str(error)[:200]}"})


def _limit_memory(gigabytes: float) -> None:
    """Bound the address space of this process, where the system has such a bound."""
    with suppress(ImportError, OSError, ValueError):  # Windows has none, macOS refuses
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30), hard))
