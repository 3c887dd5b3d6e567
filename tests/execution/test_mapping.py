"""Executors and worker processes that can be lost. The functions they run stand in this file."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from crystallm.errors import CrystallmError, InputError
from crystallm.execution import mapping
from crystallm.execution import pool as execution_pool
from crystallm.execution import tasks as execution_tasks
from misbehaving import alive, behave, conforms, ends

if TYPE_CHECKING:
    from pathlib import Path


def test_each_task_has_its_result_in_order_and_a_lost_one_costs_only_itself() -> None:
    tasks = [0, "die", 1, "sleep", 2, "raise", "chatter", 3]
    results = mapping.run("misbehaving:behave", tasks, workers=2, seconds=1.0)
    assert [r[0] for r in results if isinstance(r, list)] == [0, 1, 2, "chatter", 3]
    lost = {
        task: r.reason
        for task, r in zip(tasks, results, strict=True)
        if isinstance(r, execution_tasks.Failure)
    }
    assert lost == {
        "die": "the worker process died with code 7",
        "sleep": "took longer than 1 s",
        "raise": "ValueError: no such thing",
    }


def test_workers_are_other_processes_and_live_on_between_tasks() -> None:
    seen: list[int] = []
    results = mapping.run("misbehaving:behave", list(range(6)), workers=1, on_done=seen.append)
    pids = {pid for _, pid in results}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert seen == list(range(6))


@pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="the limit of memory is Linux's")  # noqa: PTH110
def test_a_task_that_asks_for_64_gib_is_lost_with_the_reason() -> None:
    results = mapping.run("misbehaving:behave", ["hoard", 1], memory_gb=2)
    assert results[0] == execution_tasks.Failure("needed more than 2 GiB of memory")
    assert results[1][0] == 1


def test_nothing_to_do_starts_nothing() -> None:
    assert mapping.run("no_such_module:f", []) == []


def test_a_worker_that_cannot_start_is_an_error_that_names_the_cause() -> None:
    with pytest.raises(CrystallmError, match="No module named 'no_such_module'"):
        mapping.run("no_such_module:f", [1])


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_limits_must_be_positive(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="positive"):
        mapping.run("misbehaving:behave", [1], **wrong)


# -- what every executor must do -----------------------------------------------------------------------------


def test_a_pool_conforms() -> None:
    with execution_pool.Pool(2, seconds=30) as pool:
        conforms(pool, elsewhere=True)


def test_this_process_conforms() -> None:
    conforms(execution_pool.Inline(), elsewhere=False)


def test_an_executor_of_threads_conforms() -> None:
    with ThreadPoolExecutor(2) as threads:
        conforms(threads, elsewhere=False)


def test_values_come_in_the_order_in_which_they_are_done() -> None:
    with execution_pool.Pool(2, seconds=30) as pool:
        assert [i for i, _ in mapping.stream(pool, wait_for, [0.8, 0.0, 0.1], ahead=3)] == [1, 2, 0]


def wait_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_pool_keeps_its_process_for_other_functions_and_starts_one_after_a_loss() -> None:
    with execution_pool.Pool(1, seconds=30) as pool:
        pid = pool.submit(behave, 1).result()[1]
        assert pool.submit(wait_for, 0).result() == 0
        assert pool.submit(behave, 2).result()[1] == pid
        with pytest.raises(execution_tasks.TaskError, match="died with code 7"):
            pool.submit(behave, "die").result()
        assert pool.submit(behave, 3).result()[1] != pid


def test_a_pool_takes_functions_of_modules_and_one_value() -> None:
    with execution_pool.Pool(1, seconds=30) as pool:
        with pytest.raises(InputError, match="cannot be imported"):
            pool.submit(lambda task: task, 1)
        with pytest.raises(InputError, match="one JSON value"):
            pool.submit(behave, 1, 2)
        with pytest.raises(execution_tasks.WorkerStartError, match="no_such_module"):
            pool.submit("no_such_module:f", 1).result()
        assert pool.submit(behave, 3).result()[0] == 3


def test_a_pool_that_is_left_by_an_exception_kills_what_runs() -> None:
    started = time.monotonic()
    futures: list[Future[Any]] = []
    pids: list[int] = []

    def interrupted() -> None:
        with execution_pool.Pool(2, seconds=600) as pool:
            pids.append(pool.submit(behave, 1).result()[1])
            futures.extend(pool.submit(behave, "sleep") for _ in range(5))
            time.sleep(0.3)
            assert alive(pids[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started < 300  # the tasks would take 600 s
    assert all(future.done() for future in futures)
    assert ends(pids[0])


def test_shutdown_without_waiting_still_does_what_was_submitted() -> None:
    pool = execution_pool.Pool(1, seconds=30)
    futures = [pool.submit(wait_for, 0.05) for _ in range(3)]
    pool.shutdown(wait=False)
    assert [future.result(timeout=30) for future in futures] == [0.05] * 3
    with pytest.raises(RuntimeError):
        pool.submit(wait_for, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="its processes know no parent that has gone")
def test_a_process_ends_when_its_parent_is_killed_in_the_middle_of_a_task(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from crystallm.execution.pool import Pool\n"
        "with Pool(1, seconds=600) as pool:\n"
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


def test_within_kept_a_process_serves_one_run_after_another() -> None:
    with mapping.kept():
        first = mapping.run("misbehaving:behave", [1, "raise"], workers=4)
        second = mapping.run("misbehaving:behave", [2])
        assert first[0][1] == second[0][1]
        assert first[1] == execution_tasks.Failure("ValueError: no such thing")
    assert mapping.run("misbehaving:behave", [3])[0][1] != first[0][1]


def test_a_broken_executor_is_a_loss_and_an_executor_that_cannot_start_an_error() -> None:
    class Broken(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            from concurrent.futures import BrokenExecutor

            raise BrokenExecutor("gone")

    with Broken(1) as broken:
        assert dict(mapping.stream(broken, behave, [1], ahead=1)) == {
            0: execution_tasks.Failure("the worker process died")
        }
    with execution_pool.Pool(1, seconds=30) as pool, pytest.raises(execution_tasks.WorkerStartError):
        list(mapping.stream(pool, "no_such_module:f", [1], ahead=1))
    with pytest.raises(InputError, match="ahead"):
        mapping.stream(execution_pool.Inline(), behave, [1], ahead=0)


def test_what_runs_when_a_stream_is_closed_is_cancelled() -> None:
    class Never(Executor):
        def __init__(self) -> None:
            self.futures: list[Future[Any]] = []

        def submit(self, *_: Any, **__: Any) -> Any:
            self.futures.append(Future())
            if len(self.futures) == 1:
                self.futures[0].set_result("first")
            return self.futures[-1]

    never = Never()
    values = mapping.stream(never, behave, itertools.count(), ahead=4)
    assert next(values) == (0, "first")
    values.close()
    assert [future.cancelled() for future in never.futures] == [False, True, True, True]
