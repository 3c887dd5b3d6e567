"""Tasks on executors: order, failures, retries, splitting, limits and cancellation."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from crystallm.errors import InputError
from crystallm.execution.mapping import map_tasks, run_tasks
from crystallm.execution.pool import Inline, ProcessPool
from crystallm.execution.tasks import UNLIMITED, Failure, Limits, WorkerStartError
from misbehaving import behave, die_once, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    with ProcessPool(2) as opened:
        yield opened


def test_failures_of_every_kind_cost_one_task_its_value(pool: ProcessPool) -> None:
    tasks = [1, "raise", "die", "sleep", 2]
    values = run_tasks(pool, behave, tasks, limits=Limits(seconds=1.0))
    assert [value[0] for value in (values[0], values[-1])] == [1, 2]
    assert [value.reason for value in values[1:-1]] == [
        "ValueError: no such thing",
        "the worker process died with code 7",
        "took longer than 1 s",
    ]
    assert len({value[1] for value in (values[0], values[-1])} - {os.getpid()}) >= 1


def test_a_limit_of_memory_belongs_to_the_task(pool: ProcessPool) -> None:
    (failed,) = run_tasks(pool, behave, ["hoard"], limits=Limits(memory_gb=2))
    assert failed == Failure("needed more than 2 GiB of memory")
    ((task, value),) = map_tasks(pool, behave, ["unlimited"], ahead=1, limits=None)
    assert value[0] == task == "unlimited"


def test_a_pool_keeps_processes_by_their_limit_of_memory(pool: ProcessPool) -> None:
    limits = [Limits(memory_gb=3), Limits(memory_gb=5), Limits(memory_gb=3), UNLIMITED]
    pids = [run_tasks(pool, behave, [0], limits=limit)[0][1] for limit in limits]
    assert pids[0] == pids[2]
    assert len(set(pids)) == 3


def test_a_failed_task_is_tried_again_before_new_ones() -> None:
    calls: list[int] = []

    def flaky(task: int) -> int:
        calls.append(task)
        if calls.count(task) < 3:
            raise ValueError(f"{task} fails")
        return 10 * task

    assert list(map_tasks(Inline(), flaky, [1, 2], ahead=1, attempts=3)) == [(1, 10), (2, 20)]
    assert calls == [1, 1, 1, 2, 2, 2]
    calls.clear()
    found = list(map_tasks(Inline(), flaky, [1, 2], ahead=1, attempts=2))
    assert found == [(1, Failure("ValueError: 1 fails")), (2, Failure("ValueError: 2 fails"))]


def test_a_failed_task_is_split_until_one_part_is_left() -> None:
    def total(numbers: list[int]) -> int:
        if 13 in numbers:
            raise ValueError("unlucky")
        return sum(numbers)

    def halves(numbers: list[int]) -> list[list[int]]:
        middle = len(numbers) // 2
        return [part for part in (numbers[:middle], numbers[middle:]) if part]

    found = list(map_tasks(Inline(), total, [[1, 2], [3, 13, 4, 5]], ahead=1, split=halves))
    assert found == [([1, 2], 3), ([4, 5], 9), ([3], 3), ([13], Failure("ValueError: unlucky"))]


def test_limits_hold_beside_workers_that_have_none() -> None:
    with ThreadPoolExecutor(2) as threads:
        values = run_tasks(threads, behave, [1, "raise", *range(200)], limits=Limits(seconds=30))
    assert values[1] == Failure("ValueError: no such thing")
    assert [value[0] for value in [values[0], *values[2:]]] == [1, *range(200)]
    assert os.getpid() not in {value[1] for value in [values[0], *values[2:]]}


def test_a_pool_of_its_own_is_opened_where_none_is_given() -> None:
    done: list[int] = []
    values = run_tasks(None, behave, [5, 6], workers=2, on_done=done.append)
    assert [value[0] for value in values] == [5, 6]
    assert sorted(done) == [0, 1]
    assert run_tasks(None, "no_such_module:f", []) == []


def test_an_executor_that_cannot_start_is_an_error(pool: ProcessPool) -> None:
    with pytest.raises(WorkerStartError, match="no_such_module"):
        run_tasks(pool, "no_such_module:f", [1])


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": float("nan")}, {"memory_gb": -1}])
def test_limits_that_are_not_positive_are_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="positive"):
        Limits(**wrong)


@pytest.mark.parametrize("wrong", [{"ahead": 0}, {"ahead": 1, "attempts": 0}])
def test_numbers_that_are_not_positive_are_rejected(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="positive"):
        map_tasks(Inline(), behave, [], **wrong)


def test_tasks_are_drawn_as_needed_and_cancelled_when_closed() -> None:
    class Never(Executor):
        def __init__(self) -> None:
            self.futures: list[Future[Any]] = []

        def submit(self, *_: Any, **__: Any) -> Any:
            self.futures.append(Future())
            if len(self.futures) == 1:
                self.futures[0].set_result("first")
            return self.futures[-1]

    never = Never()
    values = map_tasks(never, behave, itertools.count(), ahead=4, limits=None)
    assert next(values) == (0, "first")
    values.close()
    assert [future.cancelled() for future in never.futures] == [False, True, True, True]


def test_values_come_as_they_complete(pool: ProcessPool) -> None:
    results = map_tasks(pool, wait_for, [0.8, 0.0, 0.1], ahead=3)
    assert [task for task, _ in results] == [0.0, 0.1, 0.8]


def test_a_broken_executor_fails_its_tasks() -> None:
    class Broken(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise BrokenExecutor("gone")

    with Broken(1) as broken:
        assert run_tasks(broken, behave, [1]) == [Failure("the worker process died")]


def test_a_killed_pool_fails_its_tasks() -> None:
    pool = ProcessPool(1)
    pool.kill()
    assert run_tasks(pool, behave, [1]) == [Failure("the worker process died")]


def test_a_task_whose_process_is_killed_is_tried_again(tmp_path: Path) -> None:
    with ProcessPool(1) as pool:
        assert run_tasks(pool, die_once, [str(tmp_path / "done")]) == ["alive"]
        (failure,) = run_tasks(pool, behave, ["die"])
    assert failure.lost
