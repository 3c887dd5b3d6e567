"""Pools of worker processes that can be killed, and calls in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import misbehaving
from crystallm.errors import InputError
from crystallm.execution.pool import Inline, ProcessPool
from crystallm.execution.tasks import Limits, TaskError, WorkerStartError
from misbehaving import alive, behave, conforms, ends

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pool_conforms() -> None:
    with ProcessPool(2) as pool:
        conforms(pool, elsewhere=True)


def test_this_process_conforms() -> None:
    conforms(Inline(), elsewhere=False)


def test_an_executor_of_threads_conforms() -> None:
    with ThreadPoolExecutor(2) as threads:
        conforms(threads, elsewhere=False)


def test_a_pool_keeps_its_process_for_other_functions_and_starts_one_after_a_loss() -> None:
    with ProcessPool(1) as pool:
        pid = pool.submit(behave, 1).result()[1]
        assert pool.submit(misbehaving.wait_for, 0).result() == 0
        assert pool.submit(behave, 2).result()[1] == pid
        with pytest.raises(TaskError, match="died with code 7"):
            pool.submit(behave, "die").result()
        assert pool.submit(behave, 3).result()[1] != pid


def test_a_pool_takes_functions_of_modules_and_one_value() -> None:
    with ProcessPool(1) as pool:
        with pytest.raises(InputError, match="cannot be imported"):
            pool.submit(lambda task: task, 1)
        with pytest.raises(InputError, match="one JSON value"):
            pool.submit(behave, 1, 2)
        with pytest.raises(WorkerStartError, match="no_such_module"):
            pool.submit("no_such_module:f", 1).result()
        assert pool.submit(behave, 3).result()[0] == 3


def test_a_pool_that_is_left_by_an_exception_kills_what_runs() -> None:
    started = time.monotonic()
    futures: list[Future[Any]] = []
    pids: list[int] = []

    def interrupted() -> None:
        with ProcessPool(2) as pool:
            pids.append(pool.submit(behave, 1).result()[1])
            futures.extend(pool.submit_task(behave, "sleep", Limits(600)) for _ in range(5))
            time.sleep(0.3)
            assert alive(pids[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started < 300  # the tasks would take 600 s
    assert all(future.done() for future in futures)
    assert ends(pids[0])


def test_shutdown_without_waiting_still_does_what_was_submitted() -> None:
    pool = ProcessPool(1)
    futures = [pool.submit(misbehaving.wait_for, 0.05) for _ in range(3)]
    pool.shutdown(wait=False)
    assert [future.result(timeout=30) for future in futures] == [0.05] * 3
    with pytest.raises(RuntimeError):
        pool.submit(misbehaving.wait_for, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="its processes know no parent that has gone")
def test_a_process_ends_when_its_parent_is_killed_in_the_middle_of_a_task(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from crystallm.execution.pool import ProcessPool\n"
        "with ProcessPool(1) as pool:\n"
        "    pid = pool.submit('misbehaving:behave', 1).result()[1]\n"
        "    pathlib.Path(sys.argv[1]).write_text(str(pid))\n"
        "    pool.submit('misbehaving:behave', 'sleep').result()\n"
    )
    note = tmp_path / "pid"
    path = os.pathsep.join(sys.path)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(note)], env=os.environ | {"PYTHONPATH": path}
    )
    until = time.monotonic() + 120
    while not (note.exists() and note.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    pid = int(note.read_text())
    time.sleep(0.3)  # in which it begins the second task
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert ends(pid)


def test_a_killed_pool_takes_no_tasks() -> None:
    pool = ProcessPool(1)
    pool.kill()
    with pytest.raises(BrokenExecutor):
        pool.submit(behave, 1)


def test_a_pool_has_at_least_one_worker() -> None:
    with pytest.raises(InputError, match="workers=0"):
        ProcessPool(0)


def test_a_stopped_task_frees_its_process():
    with ProcessPool(1) as pool:
        first = pool.submit_task(behave, 1).result()[1]
        hanging, waiting = pool.submit_task(behave, "sleep"), pool.submit_task(behave, 2)
        time.sleep(0.2)
        pool.stop_task(waiting)
        assert waiting.cancelled()
        pool.stop_task(hanging)
        assert isinstance(hanging.exception(timeout=60), TaskError)
        value, second = pool.submit_task(behave, 3).result(timeout=60)
        assert (value, second == first) == (3, False)
        pool.stop_task(hanging)  # over: has no effect
        assert pool.submit_task(behave, 4).result(timeout=60) == [4, second]
    assert ends(first)
