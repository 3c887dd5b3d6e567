"""Worker processes that can be lost. The functions they run stand in this file."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from crystallm import workers
from crystallm.errors import CrystallmError, InputError


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


def test_each_task_has_its_result_in_order_and_a_lost_one_costs_only_itself() -> None:
    tasks = [0, "die", 1, "sleep", 2, "raise", "chatter", 3]
    results = workers.run("test_workers:behave", tasks, workers=2, seconds=1.0)
    assert [r[0] for r in results if isinstance(r, list)] == [0, 1, 2, "chatter", 3]
    lost = {task: r.reason for task, r in zip(tasks, results, strict=True) if isinstance(r, workers.Lost)}
    assert lost == {
        "die": "the worker process died with code 7",
        "sleep": "took longer than 1 s",
        "raise": "ValueError: no such thing",
    }


def test_workers_are_other_processes_and_live_on_between_tasks() -> None:
    seen: list[int] = []
    results = workers.run("test_workers:behave", list(range(6)), workers=1, on_done=seen.append)
    pids = {pid for _, pid in results}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert seen == list(range(6))


@pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="the limit of memory is Linux's")  # noqa: PTH110
def test_a_task_that_asks_for_64_gib_is_lost_with_the_reason() -> None:
    results = workers.run("test_workers:behave", ["hoard", 1], memory_gb=2)
    assert results[0] == workers.Lost("needed more than 2 GiB of memory")
    assert results[1][0] == 1


def test_nothing_to_do_starts_nothing() -> None:
    assert workers.run("no_such_module:f", []) == []


def test_a_worker_that_cannot_start_is_an_error_that_names_the_cause() -> None:
    with pytest.raises(CrystallmError, match="No module named 'no_such_module'"):
        workers.run("no_such_module:f", [1])


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_limits_must_be_positive(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="positive"):
        workers.run("test_workers:behave", [1], **wrong)
