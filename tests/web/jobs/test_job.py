"""One job: its events and what they add up to."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from crystallm.web.jobs.job import Job, combine_events
from crystallm.web.jobs.store import JobStore, StoredJob

ID = "job-job-job-job-"


@pytest.fixture
def job(tmp_path):
    store = JobStore(tmp_path / "out")
    store.create(ID, {"kind": "generate"}, 1.0)

    async def make():
        return Job(StoredJob(ID, {"kind": "generate"}, 1.0, [], ""), "here", store)

    return asyncio.run(make())


def lines(*events):
    return [json.dumps({"event": event, "data": data}) for event, data in events]


def test_events_add_up_to_results():
    results = combine_events(
        lines(
            ("state", {"state": "running", "time": 1, "total": 2}),
            ("crystal", {"number": 1, "valid": True}),
            ("crystal", {"number": 0, "valid": False}),
            ("update", [{"number": 1, "energy": -3.0}]),
            ("curve", {"step": 2, "energy": -3.0}),
            ("progress", {"simulations": 1}),
            ("progress", {"simulations": 2}),
        )
    )
    assert results == {
        "state": "running",
        "total": 2,
        "crystals": [{"number": 0, "valid": False}, {"number": 1, "valid": True, "energy": -3.0}],
        "curve": [{"step": 2, "energy": -3.0}],
        "progress": {"simulations": 2},
    }


def test_the_message_of_an_interruption_goes_when_the_job_is_resumed():
    events = lines(("state", {"state": "interrupted", "message": "cut short"}))
    assert combine_events(events)["message"] == "cut short"
    assert "message" not in combine_events([*events, *lines(("state", {"state": "queued"}))])


def test_events_are_on_disk_and_give_the_state(job, tmp_path):
    assert not job.is_over
    job.set_state("running", total=1)
    job.add_event("crystal", {"number": 0, "formula": "Ti₂O₄"})
    job.set_state("done")
    assert job.is_over
    stored = JobStore(tmp_path / "out").read(ID)
    assert stored.events == job.events
    assert job.results()["crystals"] == [{"number": 0, "formula": "Ti₂O₄"}]


def test_a_waiting_client_wakes_when_an_event_comes(job):
    async def work():
        waiting = asyncio.create_task(job.wait_for_change(30))
        await asyncio.sleep(0)
        job.add_event("curve", {"step": 1, "energy": 0.0})
        start = time.monotonic()
        await waiting
        assert time.monotonic() - start < 5
        await job.wait_for_change(0.01)  # nothing comes: it returns all the same

    asyncio.run(work())
