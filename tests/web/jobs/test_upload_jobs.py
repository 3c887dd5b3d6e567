"""Relaxation and evaluation of uploaded structures, and powder patterns: answers, refusals, how jobs end."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

import powder_patterns

pytest.importorskip("fastapi", reason="the page needs fastapi")
from crystallm.web import schemas
from crystallm.web.jobs.runner import run_job
from crystallm.web.jobs.services import JobServices
from crystallm.web.metrics import Metrics
from crystallm.web.options import ServerLimits
from served import MORSE
from web_requests import pattern_text


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


SOLVE = {
    "kind": "solve",
    "formula": "TiO2",
    "pattern_name": "rutile.xy",
    "crystals_from": "references",
    "candidates": 16,
    "answers": 2,
}


def test_answers_come_best_first_with_their_fits(served):
    state = served.done({**SOLVE, "pattern_text": pattern_text(), "formula": "SnO2,TiO2"})
    assert state["state"] == "done", state["message"]
    assert state["note"].startswith("TiO2 fits: Rwp")
    assert state["progress"]["candidates"] > 0
    best = state["crystals"][0]
    assert (best["rank"], best["space_group_number"], best["reduced_formula"]) == (1, 136, "TiO2")
    assert best["cell"][:3] == pytest.approx([4.587, 4.587, 2.954], rel=1e-3)
    fit = best["fit"]
    assert fit["rwp"] < 0.3
    assert [round(peak["two_theta"], 1) for peak in fit["unexplained"]] == [33.2]
    assert len(fit["measured"]) == len(fit["calculated"]) == len(fit["background"]) <= 1500
    highest = np.argmax(fit["calculated"])
    assert fit["two_theta"][0] + highest * fit["two_theta"][1] == pytest.approx(27.5, abs=0.1)
    file = served.get(f"/api/v1/jobs/{state['id']}/crystals/0/file").body.decode()
    assert "_symmetry_Int_Tables_number" in file


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"pattern_text": "no numbers"}, "pattern", "no pattern in it"),
        ({"wavelength": "CuKq"}, "wavelength", "did you mean CuKa"),
        ({"phase_cifs": ["no crystal"]}, "pattern", "phase 'phase 1'"),
    ],
)
def test_a_wrong_pattern_ends_its_job_in_one_line(served, change, field, message):
    state = served.done({**SOLVE, "pattern_text": pattern_text(), **change})
    assert state["state"] == "failed"
    assert message in state["message"]
    events = served.events(state["id"])
    assert [data["field"] for _, name, data in events if name == "state" and data["state"] == "failed"] == [
        field
    ]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"candidates": 1000}, "candidates"), ({"formula": "TiO2,Tx"}, "formula"), ({"model": "x"}, "model")],
)
def test_other_requests_are_refused_before(served, change, field):
    answer = served.post({**SOLVE, "pattern_text": pattern_text(), **change})
    assert answer.status == 422
    assert answer.error["field"] == field


def test_a_job_is_cancelled(served):
    quartz = pattern_text(powder_patterns.quartz())
    job = served.post({**SOLVE, "pattern_text": quartz, "candidates": 150}).json["id"]
    for _, name, _ in served.events(job):
        if name == "progress":
            break
    assert served.send("DELETE", f"/api/v1/jobs/{job}").json["state"] == "cancelled"


def test_requests_are_stored_as_plain_values():
    request = schemas.SolveRequest(kind="solve", formula="TiO2", pattern_text="1 2")
    record = json.loads(json.dumps(request.model_dump()))
    assert schemas.request_from_record(record) == request
