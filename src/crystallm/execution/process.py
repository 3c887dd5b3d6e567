"""A process that can be lost: one task at a time, with a limit of time and memory.

Tasks and values are JSON, one a line over a pipe, so nothing is pickled, the caller's script is not imported
again, and threads of the caller (torch's, for one) are never forked. The process ends with its caller,
however that dies. Refuses to know which tasks there are, and in which order they come: see `workers`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from crystallm.errors import describe
from crystallm.execution.tasks import NUMBER, TaskError, WorkerStartError, resolve

if TYPE_CHECKING:
    from collections.abc import Callable


START_SECONDS = 180.0
"""How long a process may take to import what it needs, on a busy machine."""


class Process:
    """One process and the pipes to it. Used from one thread at a time, stopped from any.

    Args:
        memory_gb: limit of its address space, GiB (where the system knows one: Linux); None for none.
        number: among those that stand side by side, by which it may choose a device; see `number`.

    Attributes:
        dead: whether it has been lost or stopped.
        function: name of the function that it has loaded; "" for none.
        number: as given.
    """

    def __init__(self, memory_gb: float | None, number: int = 0) -> None:
        # One thread each: side by side, two OpenMP pools bring each other down to a tenth.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = os.pathsep.join(folder for folder in sys.path if folder)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from crystallm.execution.process import serve; serve()",
                str(memory_gb or 0),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=os.environ | single | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore", NUMBER: str(number)},
        )
        self.number = number
        self.dead = False
        self.function = ""

    def load(self, name: str) -> None:
        """Let it import the function of the tasks to come, if it has not done so.

        Raises:
            StartError: it cannot. The process is then stopped.
        """
        if name == self.function:
            return
        self._say({"load": name})
        line, late = self._line(START_SECONDS)
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

    def ask(self, task: Any, seconds: float) -> Any:
        """The function's value for this task.

        Args:
            task: a JSON value.
            seconds: limit.

        Raises:
            LostError: there is none. After a limit or a crash, `dead` is set.
        """
        self._say({"task": task})
        line, late = self._line(seconds)
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
            reason = f"the worker process died with code {self._process.wait()}"
        self.stop()
        raise TaskError(reason)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.dead = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError, ValueError):  # what it never read, it cannot be told any more
                    pipe.close()

    def _say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message) + "\n"
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        with suppress(OSError, ValueError):  # it died between two tasks; reading its answer says so
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _line(self, seconds: float) -> tuple[str, bool]:
        """The next line it writes ("" at its end), and whether that took longer than the limit.

        Told by a clock, for the thread that ends the process may be late itself.
        """
        late = threading.Event()
        deadline = time.monotonic() + seconds

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
        return line if line.endswith("\n") else "", late.is_set() or time.monotonic() > deadline


def serve() -> None:
    """The process's side: read messages from standard input until it ends, write answers to another pipe."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    memory_gb = sys.argv[1]
    function: Callable[[Any], Any] | None = None

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    for line in sys.stdin:
        message = json.loads(line)
        if "load" in message:
            try:
                function = resolve(message["load"])
                if float(memory_gb):
                    _limit_memory(float(memory_gb))
            except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to hear it
                say({"error": f"{type(error).__name__}: {error}"})
                return
            say({})
            continue
        assert function is not None  # noqa: S101 - Process.load comes before Process.ask
        try:
            say({"value": function(message["task"])})
        except MemoryError:  # what is left of this process can't be trusted
            say({"error": f"needed more than {memory_gb} GiB of memory", "last": True})
            return
        except Exception as error:  # noqa: BLE001 - one task's failure is that task's result
            say({"error": describe(error)})


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is gone: that closes the pipe, but a task that hangs reads none."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _limit_memory(gigabytes: float) -> None:
    """Bound the address space of this process, where the system has such a bound."""
    with suppress(ImportError, OSError, ValueError):  # Windows has none, macOS refuses
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30), hard))
