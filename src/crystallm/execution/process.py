"""One worker process that can be killed: a task at a time, with limits of time and memory.

Tasks and values are JSON, one per line over a pipe. So nothing is pickled, the caller's script is not
imported again, and threads of the caller (torch's, for example) are never forked. The process ends with its
caller, even if that is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from crystallm.errors import describe
from crystallm.execution.tasks import INDEX_VARIABLE, TaskError, WorkerStartError
from crystallm.lazy import resolve

START_SECONDS = 180.0
"""Limit for the imports of a process, on a busy machine."""


class Process:
    """One process and the pipes to it. Used from one thread at a time, stopped from any.

    Args:
        memory_gb: limit of its address space, GiB, where the system has one; None for no limit.
        index: among the processes of a pool; see `worker_index`.

    Attributes:
        dead: whether it has failed or was stopped.
        function: name of the function that it has loaded; "" for none.
    """

    def __init__(self, memory_gb: float | None, index: int = 0) -> None:
        # One thread each: side by side, two OpenMP pools bring each other down to a tenth.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = os.pathsep.join(folder for folder in sys.path if folder)
        own = {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore", INDEX_VARIABLE: str(index)}
        code = "from crystallm.execution.process import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(memory_gb or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=os.environ | single | own,
        )
        self.memory_gb = memory_gb
        self.index = index
        self.dead = False
        self.function = ""

    def load(self, name: str) -> None:
        """Let it import the function of the next tasks, if it has not done so.

        Raises:
            WorkerStartError: it cannot. The process is then stopped.
        """
        if name == self.function:
            return
        self._send({"load": name})
        line, late = self._receive(START_SECONDS)
        if line:
            error = json.loads(line).get("error")
        elif late:
            error = f"no answer within {START_SECONDS:g} s"
        else:
            error = f"exit code {self._process.wait()}"
        if error is not None:
            self.stop()
            raise WorkerStartError(f"a worker process for {name} did not start: {error}")
        self.function = name

    def run(self, task: Any, seconds: float) -> Any:
        """Return the function's value for a task, a JSON value.

        Raises:
            TaskError: it failed. After a limit or a crash, `dead` is set.
        """
        self._send({"task": task})
        lost = False
        line, late = self._receive(seconds)
        if line and not late:
            answer: dict[str, Any] = json.loads(line)
            if "error" not in answer:
                return answer["value"]
            reason = str(answer["error"])
            if not answer.get("last", False):
                raise TaskError(reason)
        elif late:
            reason = f"took longer than {seconds:g} s"
        else:
            reason, lost = f"the worker process died with code {self._process.wait()}", True
        self.stop()
        raise TaskError(reason, lost=lost)

    def stop(self) -> None:
        """End the process at once."""
        self.dead = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError, ValueError):  # unread input cannot be flushed any more
                    pipe.close()

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message) + "\n"
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        with suppress(OSError, ValueError):  # it died between two tasks, which reading its answer reports
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _receive(self, seconds: float) -> tuple[str, bool]:
        """Return the next line it writes ("" at its end), and whether that exceeded the limit.

        A clock decides on the limit, because the thread that kills the process may itself be late.
        """
        late = threading.Event()
        deadline = time.monotonic() + seconds

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
        timer.daemon = True
        timer.start()
        try:
            assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # closed by stop() from another thread
            line = ""
        finally:
            timer.cancel()
        return line if line.endswith("\n") else "", late.is_set() or time.monotonic() > deadline


def serve() -> None:
    """Run in the process: read messages from standard input until it ends, write answers to another pipe."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # so that nothing a library prints gets between the answers
    memory_gb = sys.argv[1]
    function: Callable[[Any], Any] | None = None

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    for line in sys.stdin:
        message = json.loads(line)
        if "load" in message:
            try:
                function = resolve(message["load"])
                if float(memory_gb):
                    _limit_memory(float(memory_gb))
            except Exception as error:  # noqa: BLE001 - the parent reports any error
                answer({"error": f"{type(error).__name__}: {error}"})
                return
            answer({})
            continue
        assert function is not None  # noqa: S101 - Process.load comes before Process.run
        try:
            answer({"value": function(message["task"])})
        except MemoryError:  # the state of this process can no longer be trusted
            answer({"error": f"needed more than {memory_gb} GiB of memory", "last": True})
            return
        except Exception as error:  # noqa: BLE001 - the failure of one task is its result
            answer({"error": describe(error)})


def _end_with_parent(parent: int) -> None:
    """End this process after its parent: that closes the pipe, but a task that hangs does not read it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _limit_memory(gigabytes: float) -> None:
    """Limit the address space of this process, where the system has such a limit."""
    with suppress(ImportError, OSError, ValueError):  # Windows has none, macOS rejects it
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30), hard))
