"""Tasks that sleep, die, raise or write where they should not, and what every executor makes of them."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import signal
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from crystallm.execution.mapping import map_tasks, run_tasks
from crystallm.execution.pool import Inline, ProcessPool
from crystallm.execution.process import Process
from crystallm.execution.tasks import Failure, TaskError, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor


def behave(task: Any) -> Any:
    match task:
        case "sleep":
            time.sleep(600)
        case "die":
            os._exit(7)
        case "raise":
            raise ValueError("no such thing")
        case "hoard":
            return len(bytearray(2**36))
        case "chatter":
            os.write(1, b"{}\n")
    return [task, os.getpid()]


def die_once(path: str) -> str:
    """Kill this process, unless a file says that this was done."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "alive"
    os.kill(os.getpid(), signal.SIGKILL)
    return "dead"


def wait_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def conforms(executor: Executor, *, elsewhere: bool) -> None:
    """Values, order, exceptions, lazy drawing, early stop; and, in other processes, what dies."""
    tasks: list[Any] = [0, "raise", 1, "chatter", 2]
    tasks[3:3] = ["die"] if elsewhere else []
    results = map_tasks(executor, behave, tasks, ahead=2, limits=None)
    found = {tasks.index(task): value for task, value in results}
    assert [found[i][0] for i, task in enumerate(tasks) if task not in {"raise", "die"}] == [
        0,
        1,
        "chatter",
        2,
    ]
    assert found[1] == Failure("ValueError: no such thing")
    if elsewhere:
        assert "died" in found[3].reason
        assert os.getpid() not in {answer[1] for answer in found.values() if isinstance(answer, list)}

    future = executor.submit(behave, "raise")
    with pytest.raises((TaskError, ValueError), match="no such thing"):
        future.result(timeout=60)

    drawn: list[int] = []

    def endless() -> Iterator[int]:
        for i in itertools.count():
            drawn.append(i)
            yield i

    numbers = map_tasks(executor, behave, endless(), ahead=3, limits=None)
    seen = []
    for n, (i, answer) in enumerate(itertools.islice(numbers, 8), start=1):
        assert answer[0] == i
        assert len(drawn) <= n + 2  # drawn, less those handed out before this one, are 3 at most
        seen.append(i)
    assert len(set(seen)) == 8
    numbers.close()
    assert executor.submit(behave, 7).result(timeout=60)[0] == 7

    values = run_tasks(executor, behave, tasks)  # with limits, in a process beside a worker that has none
    assert [type(value) for value in values] == [type(found[i]) for i in range(len(tasks))]


class InlinePool(Inline):
    """Runs the tasks of a process pool in this process; `fails` decides which tasks fail instead.

    Attributes:
        calls: names of the functions, one per task.
    """

    calls: ClassVar[list[str]] = []
    fails: ClassVar[Callable[[str, Any], bool]] = staticmethod(lambda name, task: False)

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def kill(self) -> None:
        """Do nothing: there are no processes."""

    def submit_task(self, function: Any, task: Any, limits: Any = None) -> Future[Any]:
        """Run a task as a process would: values travel as JSON."""
        name = name_of(function)
        self.calls.append(name.partition(":")[2])
        if self.fails(self.calls[-1], task):
            future: Future[Any] = Future()
            future.set_exception(TaskError("took longer than 1 s"))
            return future
        future = self.submit(name, json.loads(json.dumps(task)))
        if future.exception() is None:
            json.dumps(future.result())
        return future


def use_inline_pool(monkeypatch: pytest.MonkeyPatch, fails: Any = None) -> list[str]:
    """Replace process pools that functions open for one call; return the list of calls."""
    calls: list[str] = []
    monkeypatch.setattr(InlinePool, "calls", calls)
    if fails is not None:
        monkeypatch.setattr(InlinePool, "fails", staticmethod(fails))
    for module in ("execution.mapping", "execution.place", "generation.generate", "pipelines.hull"):
        monkeypatch.setattr(f"crystallm.{module}.ProcessPool", InlinePool)
    return calls


_IDLE: list[Process] = []
"""Worker processes that earlier tests have left; see `keep_processes`."""


@atexit.register
def _stop_idle() -> None:
    while _IDLE:
        _IDLE.pop().stop()


def keep_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let process pools leave their idle processes to the next pool, in place of ending them."""
    end = ProcessPool.kill

    def start(memory_gb: float | None, index: int = 0) -> Process:
        for process in _IDLE:
            if (process.memory_gb, process.index) == (memory_gb, index):
                _IDLE.remove(process)
                return process
        return Process(memory_gb, index)

    def kill(pool: ProcessPool) -> None:
        with pool._lock:
            _IDLE.extend(pool._idle)
            pool._alive -= set(pool._idle)
            pool._idle.clear()
        end(pool)

    monkeypatch.setattr("crystallm.execution.pool.Process", start)
    monkeypatch.setattr(ProcessPool, "kill", kill)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ends(pid: int) -> bool:
    """Whether a process is gone within a minute: whoever started it may be slow to notice its end."""
    until = time.monotonic() + 60
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)
