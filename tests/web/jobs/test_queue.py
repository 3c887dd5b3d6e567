"""The queue: jobs that are cancelled, fail, are interrupted and resumed."""

from __future__ import annotations

import asyncio
import errno
import json

import pytest

from crystallm.errors import CrystallmError, InputError

pytest.importorskip("fastapi", reason="the page needs fastapi")
from crystallm.web.jobs.job import BusyError, combine_events
from crystallm.web.jobs.queue import JobQueue
from crystallm.web.jobs.store import JobStore, last_state
from crystallm.web.metrics import Metrics
from crystallm.web.options import ServerLimits

SECONDS = 60


def jobs_of(tmp_path, runner, **limits):
    store = JobStore(tmp_path / "out")
    return JobQueue(store, ServerLimits(**limits), Metrics(), runner)


async def ended(*jobs):
    """Wait until all are over."""
    for _ in range(100 * SECONDS):
        if all(job.is_over and job.task is None for job in jobs):
            return
        await asyncio.sleep(0.01)
    raise AssertionError([job.state for job in jobs])


def test_a_job_cancelled_before_it_starts_is_over(tmp_path):
    async def work():
        async def run(job):
            raise AssertionError("it has started")

        jobs = jobs_of(tmp_path, run, max_running=1)
        first, second = (jobs.submit({"kind": "generate"}, "here") for _ in range(2))
        assert jobs.position(second) == 1
        jobs.cancel(second)
        jobs.cancel(first)
        await ended(first, second)
        assert (first.state, second.state) == ("cancelled", "cancelled")
        assert jobs.n_running == jobs.n_waiting == 0
        jobs.submit({"kind": "generate"}, "here")  # the address has a slot again

    asyncio.run(work())


def test_a_job_that_takes_too_long_or_fails_has_a_message(tmp_path):
    async def work():
        faults = {
            "slow": lambda: asyncio.sleep(60),
            "wrong": lambda: raising(InputError("no such thing")),
            "together": lambda: raising(ExceptionGroup("", [CrystallmError("the disk is full")])),
            "ours": lambda: raising(KeyError("secret")),
        }

        async def raising(error):
            raise error

        jobs = jobs_of(tmp_path, lambda job: faults[job.request["kind"]](), job_timeout=0.2)
        found = [jobs.submit({"kind": kind}, "here") for kind in faults]
        await ended(*found)
        assert [job.state for job in found] == ["failed"] * 4
        messages = [combine_events(job.events)["message"] for job in found]
        assert messages == [
            "took longer than 0.2 s: request less",
            "no such thing",
            "the disk is full",
            "internal error: see the log of the server",
        ]

    asyncio.run(work())


def test_what_the_machine_lacks_interrupts_a_job(tmp_path):
    async def work():
        async def run(job):
            error = OSError(getattr(errno, job.request["kind"]), "no more")
            if job.request["kind"] == "ENOSPC":
                stored = CrystallmError("the results cannot be stored")
                stored.__cause__ = error
                raise ExceptionGroup("", [stored])
            raise error

        jobs = jobs_of(tmp_path, run)
        found = {kind: jobs.submit({"kind": kind}, "here") for kind in ("ENOSPC", "EMFILE", "ENOENT")}
        await ended(*found.values())
        return {kind: (job.state, combine_events(job.events)["message"]) for kind, job in found.items()}

    assert asyncio.run(work()) == {
        "ENOSPC": ("interrupted", "the results cannot be stored; resume the job for the rest"),
        "EMFILE": ("interrupted", "the server cannot go on: no more; resume the job for the rest"),
        "ENOENT": ("failed", "the server cannot go on: no more"),
    }


def test_a_queue_that_is_closed_takes_no_job(tmp_path):
    async def work():
        async def run(job):
            await asyncio.sleep(60)

        jobs = jobs_of(tmp_path, run)
        job = jobs.submit({"kind": "generate"}, "here")
        await jobs.close()
        assert job.state == "interrupted"
        assert [line async for _, line in jobs.follow(job, len(job.events))] == []
        with pytest.raises(BusyError, match="being stopped"):
            jobs.submit({"kind": "generate"}, "here")

    asyncio.run(work())


def test_a_job_is_over_even_if_the_disk_is_full(tmp_path, monkeypatch):
    append = JobStore.append

    def full(self, name, line):
        if '"state":"queued"' not in line:
            raise CrystallmError("the results cannot be stored: No space left on device")
        append(self, name, line)

    async def work():
        async def run(job):
            job.add_event("crystal", {"number": 0})

        jobs = jobs_of(tmp_path, run)
        monkeypatch.setattr(JobStore, "append", full)
        job = jobs.submit({"kind": "generate"}, "here")
        await ended(job)
        assert job.state == "failed"
        assert "No space left" in combine_events(job.events)["message"]
        later = jobs_of(tmp_path, run)  # which has only what the disk has taken
        found = await later.get(job.id)
        assert found.state == combine_events(found.events)["state"] == "interrupted"
        monkeypatch.setattr(JobStore, "append", append)
        again = await jobs_of(tmp_path, run).get(job.id)
        assert again.state == "interrupted"
        assert last_state(JobStore(tmp_path / "out").read(job.id).events) == "interrupted"

    asyncio.run(work())


def test_an_interrupted_job_takes_a_slot_to_be_resumed(tmp_path):
    async def work():
        started = []

        async def run(job):
            started.append(job.id)
            job.add_event("crystal", {"number": len(started)})
            if len(started) < 2:
                await asyncio.sleep(60)

        first = jobs_of(tmp_path, run)
        job = first.submit({"kind": "generate"}, "here", "of these weights")
        await asyncio.sleep(0.05)
        await first.close()
        assert job.state == "interrupted"
        jobs = jobs_of(tmp_path, run, max_jobs_per_address=1)
        stored = await jobs.get(job.id)
        assert (stored.state, stored.origin) == ("interrupted", "of these weights")
        other = jobs.submit({"kind": "search"}, "there")
        with pytest.raises(BusyError, match="of your address"):
            jobs.resume(stored, "there")
        assert stored.state == "interrupted"
        jobs.cancel(other)
        await asyncio.sleep(0.05)
        jobs.resume(stored, "there")
        jobs.resume(stored, "there")  # it is queued or running: nothing more happens
        assert await jobs.get(job.id) is stored
        events = [json.loads(line) async for _, line in jobs.follow(stored, 0)]
        assert started == [job.id] * 2
        states = [one["data"]["state"] for one in events if one["event"] == "state"]
        assert states == ["queued", "running", "queued", "running", "done"]
        assert [one["data"]["number"] for one in events if one["event"] == "crystal"] == [1, 2]
        assert "message" not in combine_events(stored.events)
        with pytest.raises(ValueError, match="done"):
            jobs.resume(stored, "there")

    asyncio.run(work())
