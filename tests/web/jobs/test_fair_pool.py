"""Clients share worker processes; a cancelled task frees its process."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import BrokenExecutor, Future

import pytest

from crystallm.execution.tasks import DEFAULT_LIMITS, TaskError
from crystallm.web.jobs import fair_pool
from crystallm.web.jobs.fair_pool import OWNER, FairPool
from misbehaving import behave, die_once, ends


class _Clock:
    """A pool of one process whose tasks take as many seconds as they say."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.order = []
        monkeypatch.setattr(fair_pool, "ProcessPool", lambda _: self)
        monkeypatch.setattr(fair_pool.time, "monotonic", lambda: self.now)

    def submit_task(self, _, task, __):
        name, seconds = task
        self.order.append(name)
        self.now += seconds
        future = Future()
        future.set_result(name)
        return future


async def _submit(pool, owner, tasks):
    OWNER.set(owner)
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(pool.run(behave, task, DEFAULT_LIMITS))


def _order(monkeypatch, *jobs):
    clock = _Clock(monkeypatch)

    async def work():
        pool = FairPool(1)
        async with asyncio.TaskGroup() as group:
            for owner, tasks in jobs:
                group.create_task(_submit(pool, owner, tasks))

    asyncio.run(work())
    return "".join(clock.order)


def test_clients_take_turns_whatever_the_number_of_their_jobs(monkeypatch):
    jobs = [(("a", str(i)), [("a", 1)] * 4) for i in range(3)]
    assert _order(monkeypatch, *jobs, (("b", "3"), [("b", 1)] * 3)).startswith("abababa")


def test_jobs_of_a_client_take_turns(monkeypatch):
    assert _order(monkeypatch, (("a", "1"), [("1", 1)] * 3), (("a", "2"), [("2", 1)] * 3)) == "121212"


def test_slow_tasks_wait_for_the_quick_ones_of_others(monkeypatch):
    slow, quick = (("a", "1"), [("a", 60)] * 3), (("b", "2"), [("b", 1)] * 20)
    assert _order(monkeypatch, slow, quick) == "a" + "b" * 20 + "aa"


def test_a_client_that_comes_back_has_saved_nothing(monkeypatch):
    clock = _Clock(monkeypatch)

    async def work():
        pool = FairPool(1)
        await _submit(pool, ("b", "0"), [("b", 1)])
        async with asyncio.TaskGroup() as group:
            group.create_task(_submit(pool, ("a", "1"), [("a", 10)] * 4))
            await asyncio.sleep(0)
            group.create_task(_submit(pool, ("b", "2"), [("b", 10)] * 4))

    asyncio.run(work())
    assert "".join(clock.order) == "babababab"


def test_a_cancelled_task_frees_its_process(tmp_path):
    async def work():
        pool = FairPool(1)
        try:
            _, first = await pool.run(behave, 1, DEFAULT_LIMITS)
            hanging = asyncio.create_task(pool.run(behave, "sleep", DEFAULT_LIMITS))
            waiting = asyncio.create_task(pool.run(behave, 2, DEFAULT_LIMITS))
            await asyncio.sleep(0.5)
            hanging.cancel()
            value, second = await waiting
            with pytest.raises(asyncio.CancelledError):
                await hanging
        finally:
            pool.kill()
        return value, first, second

    value, first, second = asyncio.run(work())
    assert value == 2
    assert second not in {first, os.getpid()}
    assert ends(first)


def test_a_task_whose_process_is_killed_is_tried_again(tmp_path):
    async def work():
        pool = FairPool(1)
        try:
            assert await pool.run(die_once, str(tmp_path / "done"), DEFAULT_LIMITS) == "alive"
            with pytest.raises(TaskError, match="died"):
                await pool.run(behave, "die", DEFAULT_LIMITS)
        finally:
            pool.kill()

    asyncio.run(work())


def test_a_cancelled_call_frees_all_processes():
    seen = []
    begun = threading.Event()

    def use(pool):
        seen.append(pool.submit_task(behave, 1).result()[1])
        begun.set()
        pool.submit_task(behave, "sleep").exception()
        with pytest.raises(BrokenExecutor):
            pool.submit_task(behave, 1)

    async def work():
        pool = FairPool(1)
        try:
            hanging = asyncio.create_task(pool.call(use))
            await asyncio.to_thread(begun.wait)
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            assert await pool.call(lambda found: found.submit_task(behave, 2).result()[0]) == 2
        finally:
            pool.kill()

    asyncio.run(work())
    assert ends(seen[0])


def test_tasks_that_run_and_wait_are_cancelled_together():
    """A freed process is not given to a task that is cancelled but has not noticed it yet."""

    async def work():
        pool = FairPool(1)
        try:
            tasks = [asyncio.create_task(pool.run(behave, "sleep", DEFAULT_LIMITS)) for _ in range(4)]
            await asyncio.sleep(0.2)
            for task in tasks:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            pool.kill()

    assert [type(outcome) for outcome in asyncio.run(work())] == [asyncio.CancelledError] * 4
