"""Searches over HTTP and in this process: their crystals and curve, their turn, and how they end."""

from __future__ import annotations

import asyncio
import copy
import json
import re

import pytest

from crystallm.errors import CrystallmError
from crystallm.models.load import load_model
from crystallm.structures import conversion
from crystallm.web.jobs import generate_job, search_job
from crystallm.web.jobs.job import combine_events
from crystallm.web.jobs.services import JobServices
from crystallm.web.metrics import Metrics
from crystallm.web.options import ServerLimits
from crystallm.web.request_check import check_request
from crystallm.web.schemas import request_from_record
from energies import Morse
from served import MORSE, Served
from web_requests import LONG_SEARCH, SEARCH

pytest.importorskip("fastapi", reason="the page needs fastapi")
pytest.importorskip("uvicorn", reason="the page needs uvicorn")


@pytest.fixture(scope="module")
def searched(served):
    """The events of a search, and its state in the end."""
    answer = served.post(SEARCH)
    assert answer.status == 202, answer.body
    job = answer.json["id"]
    events = [(name, data) for _, name, data in served.events(job)]
    return events, served.get(f"/api/v1/jobs/{job}").json


def test_each_new_crystal_is_reported_with_its_energy(searched):
    events, state = searched
    assert state["state"] == "done"
    crystals = [data for name, data in events if name == "crystal"]
    assert len(crystals) > 1
    assert [one["number"] for one in crystals] == list(range(len(crystals)))
    assert [one["energy_call"] for one in crystals] == list(range(1, len(crystals) + 1))
    assert [one["simulation"] for one in crystals] == sorted(one["simulation"] for one in crystals)
    assert len({one["cif"] for one in crystals}) == len(crystals)
    for one in crystals:
        assert one["valid"]
        assert all(one["checks"].values())
        (known,) = Morse().predict([conversion.from_json(one["structure"])])
        assert one["energy"] == pytest.approx(known.energy)
        assert len(one["tokens"]) == one["n_tokens"]
    names = [name for name, _ in events]
    assert names.index("crystal") < names.index("progress") < len(names) - 1 - names[::-1].index("progress")


def test_the_curve_falls_to_the_lowest_energy_and_ranks_follow(searched):
    _, state = searched
    curve = [point["energy"] for point in state["curve"]]
    assert curve == sorted(set(curve), reverse=True)
    ranked = sorted(state["crystals"], key=lambda one: one["rank"])
    best_of = {one["cluster"]: one["energy"] for one in reversed(ranked)}
    firsts = ranked[: len(best_of)]  # duplicates of lower ones come last
    assert {one["cluster"] for one in firsts} == set(best_of)
    energies = [one["energy"] for one in firsts]
    assert energies == sorted(energies)
    assert curve[-1] == energies[0] == state["progress"]["energy"]
    by_simulation = {one["simulation"]: one["energy"] for one in state["crystals"]}
    assert all(by_simulation[point["step"]] == point["energy"] for point in state["curve"])
    assert state["total"] == state["progress"]["simulations"] == 40
    assert state["progress"]["energy_calls"] == len(state["crystals"])


def test_a_search_is_reproducible_and_keeps_its_limits(served, searched):
    _, whole = searched
    shorter = served.done({**SEARCH, "energy_calls": 3, "n": 1})
    assert shorter["progress"]["energy_calls"] == 3
    assert "ended early" not in shorter["note"]
    first = [one["energy"] for one in whole["crystals"][:3]]
    lowest = [energy for k, energy in enumerate(first) if energy == min(first[: k + 1])]
    assert [one["energy"] for one in shorter["crystals"]] == lowest  # the first, and what fell below it


def test_searches_take_turns_and_other_jobs_pass_them(served):
    first, second = (served.post({**LONG_SEARCH, "seed": seed}).json["id"] for seed in (4, 5))
    events = served.events(first)
    assert any(name == "progress" for _, name, _ in events)
    assert served.get(f"/api/v1/jobs/{second}").json["position"] == 1
    other = served.done({"kind": "generate", "formula": "NaCl", "z": 4, "n": 1, "seed": 1})
    assert other["state"] == "done"
    assert served.get(f"/api/v1/jobs/{first}").json["state"] == "running"
    cancelled = served.send("DELETE", f"/api/v1/jobs/{first}").json
    assert cancelled["state"] == "cancelled"
    assert cancelled["crystals"]
    crystals = []
    for _, name, _ in served.events(second):
        crystals.append(name)
        if name == "progress":
            break
    assert "crystal" in crystals
    assert served.send("DELETE", f"/api/v1/jobs/{second}").json["state"] == "cancelled"
    after = served.get(f"/api/v1/jobs/{first}").json
    assert after == cancelled  # nothing is reported after the end


def test_a_killed_server_keeps_the_crystals_of_a_search(parrot, tmp_path):
    out = tmp_path / "out"
    server = Served(parrot, out)
    try:
        job = server.post(LONG_SEARCH).json["id"]
        seen = []
        for _, name, data in server.events(job):
            if name == "crystal":
                seen.append(data)
            if name == "progress" and seen:
                break
    finally:
        server.kill()
    server = Served(parrot, out)
    try:
        state = server.get(f"/api/v1/jobs/{job}").json
        assert state["state"] == "interrupted"
        assert "resume it" in state["message"]
        assert state["crystals"][: len(seen)] == [
            {**one, "rank": state["crystals"][k]["rank"]} for k, one in enumerate(seen)
        ]
        assert state["curve"]
        job = server.post(LONG_SEARCH).json["id"]
        assert any(name == "progress" for _, name, _ in server.events(job))
    finally:
        server.end()
    assert server.process.returncode == 130  # Ctrl-C, which does not wait for the end of a search
    assert '"state":"interrupted"' in (out / "jobs" / job / "events.jsonl").read_text().splitlines()[-1]


class LocalJob:
    """A job of a search that runs in this process.

    Args:
        folder: of its journal.
        max_events: crystals, curve points and progress events for which the disk has space; None for all.
    """

    def __init__(self, folder, max_events=None):
        self.id = "here"
        self.search_log = folder / "search.jsonl"
        self.events = []
        self.max_events = max_events

    def results(self):
        return combine_events([json.dumps({"event": event, "data": data}) for event, data in self.events])

    def add_event(self, event, data):
        if len(reported(self)) == self.max_events:
            raise CrystallmError("the results cannot be stored")
        self.events.append((event, copy.deepcopy(data)))

    def set_state(self, state, **more):
        self.events.append(("state", {"state": state, **more}))


def run_search(parrot, energy, job, simulations=40, **limits):
    """Return the events of a search that runs in this process."""
    services = services_of(parrot, energy, **limits)
    request = request_from_record({**SEARCH, "simulations": simulations})
    request = request_from_record(check_request(services, request))
    try:
        asyncio.run(search_job.run(services, job, request))
    finally:
        services.close()
        services.search_threads.close(wait=True)
    return job.events


def services_of(parrot, energy, **limits):
    model = load_model(str(parrot), device="cpu")
    return JobServices({model.name: model}, [energy], ServerLimits(**limits), Metrics(), check_workers=1)


def test_an_interrupted_search_ends_like_one_that_was_not(parrot, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = LocalJob(tmp_path / "whole")
    run_search(parrot, MORSE, whole)
    names = [name for name, _ in reported(whole)]
    assert not whole.search_log.exists()  # deleted when the job is done
    job = LocalJob(tmp_path / "cut")
    second = names.index("crystal", names.index("crystal") + 1)
    last = len(names) - 1 - names[::-1].index("progress")
    for max_events in (second, last - 1, last):  # within the first round, before and after the last one
        job.max_events = max_events
        with pytest.raises(CrystallmError, match="cannot be stored"):
            run_search(parrot, MORSE, job)
        if max_events == second:  # the search is ahead of its report
            lines = job.search_log.read_text().splitlines(keepends=True)
            n = sum(json.loads(line)["round"] == 0 for line in lines)
            job.search_log.write_text("".join(lines[:n]) + "".join(lines[n:])[:100])  # as a kill leaves it
    job.max_events = None
    run_search(parrot, MORSE, job)
    assert reported(job) == reported(whole)
    assert job.results() == whole.results()


def reported(job):
    """What a job has reported of crystals and how far it is."""
    return [(name, data) for name, data in job.events if name in ("crystal", "curve", "progress")]


def test_a_crystal_without_energy_keeps_its_number_when_it_gets_one(parrot, tmp_path):
    job = LocalJob(tmp_path, max_events=2)
    with pytest.raises(CrystallmError, match="cannot be stored"):
        run_search(parrot, "energies:nan", job)
    without_energy = [data["number"] for name, data in job.events if name == "crystal"]
    assert without_energy
    job.max_events = None
    run_search(parrot, MORSE, job, 60)  # computes those that are sampled again
    crystals = job.results()["crystals"]
    assert len({one["cif"] for one in crystals}) == len(crystals)
    updated = [crystals[number] for number in without_energy if crystals[number]["energy"] is not None]
    assert updated
    for one in updated:
        (known,) = Morse().predict([conversion.from_json(one["structure"])])
        assert one["energy"] == pytest.approx(known.energy)
        assert not one["energy_reason"]


def test_a_damaged_journal_fails_the_job(parrot, tmp_path):
    job = LocalJob(tmp_path)
    job.search_log.write_text('{"round": 0, "of": 2}\n{"round": 1, "of": 1}\n')
    with pytest.raises(CrystallmError, match="cannot be read or written: submit it again") as error:
        run_search(parrot, MORSE, job)
    assert str(tmp_path) not in str(error.value)


def test_an_energy_model_that_cannot_be_loaded_fails_the_job(parrot, tmp_path):
    with pytest.raises(CrystallmError, match="the weights are gone"):
        run_search(parrot, "energies:unloadable", LocalJob(tmp_path))


def test_a_model_without_energies_ends_a_search_with_the_reason(parrot, tmp_path, monkeypatch):
    from crystallm.structure_search import search as structure_search_search

    monkeypatch.setattr(structure_search_search, "GIVE_UP", 1)
    events = run_search(parrot, "energies:nan", LocalJob(tmp_path))
    cards = [data for name, data in events if name == "crystal"]
    assert cards
    assert all(one["energy"] is None and one["energy_reason"] for one in cards)
    assert "curve" not in [name for name, _ in events]
    assert "ended early: energies:nan gave no energy" in events[-1][1]["note"]


def test_a_search_ends_early_when_time_is_short(parrot, tmp_path):
    events = run_search(parrot, MORSE, LocalJob(tmp_path), job_timeout=0.001)
    (progress, *_) = [data for name, data in reversed(events) if name == "progress"]
    done = progress["simulations"]
    assert done < 40
    assert f"ended early: {done} of 40 simulations" in events[-1][1]["note"]


def test_no_z_exceeds_the_limit_on_atoms(parrot):
    open_z = {"formula": "TiO2", "z": "auto", "n": 8, "seed": 1}
    for atoms, max_z in ((3, 1), (8, 2)):
        services = services_of(parrot, MORSE, max_cell_atoms=atoms)
        try:
            generate, search = (
                request_from_record(check_request(services, request_from_record({"kind": kind, **open_z})))
                for kind in ("generate", "search")
            )
            notes = [generate_job.plan(services, generate)[0], search_job.build_search(services, search).note]
        finally:
            services.close()
        for note in notes:
            tried = [int(z) for z in re.findall(r"(\d+) \(", note)]
            assert tried
            assert max(tried) <= max_z
