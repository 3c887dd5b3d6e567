"""Relaxation and evaluation of uploaded structures."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi", reason="the page needs fastapi")
from crystallm.web.jobs.runner import run_job
from crystallm.web.jobs.services import JobServices
from crystallm.web.metrics import Metrics
from crystallm.web.options import ServerLimits
from served import MORSE


def test_uploaded_structures_are_checked_and_relaxed(served, textbook_structures):
    cifs = [textbook_structures["rocksalt"].to(fmt="cif"), "data_nothing\n"]
    checked = served.done({"kind": "evaluate", "structures": cifs})
    good, bad = checked["crystals"]
    assert good["valid"]
    assert good["space_group"] == "Fm-3m"
    assert not bad["valid"]
    assert bad["reasons"]
    relaxed = served.done({"kind": "relax", "structures": cifs, "steps": 3})
    assert relaxed["request"]["energy"] == MORSE
    good, bad = relaxed["crystals"]
    assert good["relaxed"]["steps"] <= 3
    assert bad["energy"] is None
    assert bad["energy_reason"] == "no crystal"


class LocalJob:
    """A job that runs in this process, with the crystals of an earlier run."""

    def __init__(self, request, crystals=()):
        self.id, self.address = "job", "here"
        self.request = request
        self.crystals = list(crystals)
        self.events = []

    def results(self):
        return {"crystals": self.crystals}

    def add_event(self, event, data):
        self.events.append((event, data))

    def set_state(self, state, **_):
        self.events.append(("state", state))


@pytest.fixture
def services(monkeypatch):
    """Services whose summaries and energies need no process."""
    services = JobServices({}, [MORSE], ServerLimits(), Metrics(), check_workers=1)
    services.relaxed, services.summarised = [], []

    async def summarise(text, read_as=None):
        services.summarised.append((text, read_as))
        return {"structure": text}

    async def relax(structure, model, options):
        services.relaxed.append(structure)
        return {"energy": -1.0}

    monkeypatch.setattr(services, "uploaded_summary", summarise)
    monkeypatch.setattr(services, "relax", relax)
    yield services
    services.close()


def test_a_resumed_relaxation_does_what_is_missing(services):
    earlier = [{"number": 0, "structure": "a", "energy": -2.0}, {"number": 1, "structure": "b"}]
    job = LocalJob({"kind": "relax", "structures": ["a", "b", "c"], "energy": MORSE}, earlier)
    asyncio.run(run_job(services, job))
    assert services.summarised == [("c", None)]
    assert sorted(services.relaxed) == ["b", "c"]
    updates = [data for event, data in job.events if event == "update"]
    assert sorted(updates, key=str) == [[{"number": 1, "energy": -1.0}], [{"number": 2, "energy": -1.0}]]


def test_a_resumed_evaluation_does_what_is_missing(services):
    earlier = [{"number": 0, "structure": "a"}, {"number": 1, "structure": "b"}]
    job = LocalJob({"kind": "evaluate", "structures": ["a", "b", "c"], "read_as": "text"}, earlier)
    asyncio.run(run_job(services, job))
    assert services.summarised == [("c", "text")]
    assert ("crystal", {"number": 2, "structure": "c"}) in job.events
