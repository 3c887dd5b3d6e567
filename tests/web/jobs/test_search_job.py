"""Searches over HTTP: their crystals and curve, their turn, and how they end."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest

from crystallm.errors import CrystallmError
from crystallm.structures import conversion
from crystallm.web.jobs.job import view
from energies import Morse
from served import MORSE, Served

pytest.importorskip("fastapi", reason="the page needs fastapi")
pytest.importorskip("uvicorn", reason="the page needs uvicorn")

SEARCH = {"kind": "search", "formula": "TiO2", "z": 2, "simulations": 40, "seed": 3}
LONG = {**SEARCH, "simulations": 1000, "seed": 4}


@pytest.fixture(scope="module")
def searched(served):
    """The events of a search, and its state in the end."""
    answer = served.post(SEARCH)
    assert answer.status == 202, answer.body
    job = answer.json["id"]
    events = [(name, data) for _, name, data in served.events(job)]
    return events, served.get(f"/api/v1/jobs/{job}").json


def test_each_new_crystal_is_told_with_its_energy_as_it_is_found(searched):
    events, state = searched
    assert state["state"] == "done"
    told = [data for name, data in events if name == "crystal"]
    assert len(told) > 1
    assert [one["number"] for one in told] == list(range(len(told)))
    assert [one["energy_call"] for one in told] == list(range(1, len(told) + 1))
    assert [one["simulation"] for one in told] == sorted(one["simulation"] for one in told)
    assert len({one["cif"] for one in told}) == len(told)
    for one in told:
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
    firsts = ranked[: len(best_of)]  # those that match a lower one stand behind
    assert {one["cluster"] for one in firsts} == set(best_of)
    energies = [one["energy"] for one in firsts]
    assert energies == sorted(energies)
    assert curve[-1] == energies[0] == state["progress"]["energy"]
    by_simulation = {one["simulation"]: one["energy"] for one in state["crystals"]}
    assert all(by_simulation[point["step"]] == point["energy"] for point in state["curve"])
    assert state["total"] == state["progress"]["simulations"] == 40
    assert state["progress"]["energy_calls"] == len(state["crystals"])


def test_a_search_is_the_same_again_and_keeps_its_bounds(served, searched):
    _, whole = searched
    shorter = served.done({**SEARCH, "energy_calls": 3, "n": 1})
    assert shorter["progress"]["energy_calls"] == 3
    assert "ended early" not in shorter["note"]
    first = [one["energy"] for one in whole["crystals"][:3]]
    lowest = [energy for k, energy in enumerate(first) if energy == min(first[: k + 1])]
    assert [one["energy"] for one in shorter["crystals"]] == lowest  # the first, and what fell below it


def test_searches_take_turns_and_others_pass_them(served):
    first, second = (served.post({**LONG, "seed": seed}).json["id"] for seed in (4, 5))
    events = served.events(first)
    assert any(name == "progress" for _, name, _ in events)
    assert served.get(f"/api/v1/jobs/{second}").json["position"] == 1
    other = served.done({"kind": "generate", "formula": "NaCl", "z": 4, "n": 1, "seed": 1})
    assert other["state"] == "done"
    assert served.get(f"/api/v1/jobs/{first}").json["state"] == "running"
    cancelled = served.ask("DELETE", f"/api/v1/jobs/{first}").json
    assert cancelled["state"] == "cancelled"
    assert cancelled["crystals"]
    told = []
    for _, name, _ in served.events(second):
        told.append(name)
        if name == "progress":
            break
    assert "crystal" in told
    assert served.ask("DELETE", f"/api/v1/jobs/{second}").json["state"] == "cancelled"
    after = served.get(f"/api/v1/jobs/{first}").json
    assert after == cancelled  # nothing is told of a search that is over


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"simulations": 1001}, "simulations"),
        ({"simulations": 0}, "simulations"),
        ({"n": 65}, "n"),
        ({"energy_calls": 0}, "energy_calls"),
        ({"energy": "os:system"}, "energy"),
        ({"recipe": "theirs"}, "recipe"),
        ({"space_group": 225}, "space_group"),
        ({"formula": "Xy2"}, "formula"),
        ({"temperature": 1.0}, "temperature"),
    ],
)
def test_what_cannot_be_searched_is_told_with_its_field(wrong, field, served):
    answer = served.post({**SEARCH, **wrong})
    assert answer.status == 422
    assert answer.error["field"] == field


def test_a_killed_server_keeps_what_a_search_has_found(parrot, tmp_path):
    out = tmp_path / "out"
    server = Served(parrot, out)
    try:
        job = server.post(LONG).json["id"]
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
        assert "go on with it" in state["message"]
        assert state["crystals"][: len(seen)] == [
            {**one, "rank": state["crystals"][k]["rank"]} for k, one in enumerate(seen)
        ]
        assert state["curve"]
        job = server.post(LONG).json["id"]
        assert any(name == "progress" for _, name, _ in server.events(job))
    finally:
        server.end()
    assert server.process.returncode == 130  # Ctrl-C, which does not wait for the end of a search
    assert '"state":"interrupted"' in (out / "jobs" / job / "events.jsonl").read_text().splitlines()[-1]


# -- in this process: how a search ends before its bounds ---------------------------------------------------


class Kept:
    """A job of a search that is run here.

    Args:
        folder: of its log.
        place: for so many crystals, points and reports of progress; the disk is full then.
    """

    def __init__(self, folder, place=None):
        self.name = "here"
        self.search_log = folder / "search.jsonl"
        self.events = []
        self.place = place

    def known(self):
        return view([json.dumps({"event": event, "data": data}) for event, data in self.events])

    def tell(self, event, data):
        if len(told(self)) == self.place:
            raise CrystallmError("the results cannot be kept")
        self.events.append((event, copy.deepcopy(data)))

    def enter(self, state, **more):
        self.events.append(("state", {"state": state, **more}))


def do(parrot, energy, job, simulations=40, **limits):
    """The events of a search that is run here."""
    from crystallm.models.load import load_model
    from crystallm.web import schemas
    from crystallm.web.jobs import search_job
    from crystallm.web.jobs.runner import JobRunner
    from crystallm.web.metrics import Metrics
    from crystallm.web.rate_limits import Limits

    model = load_model(str(parrot), device="cpu")
    runner = JobRunner({model.name: model}, [energy], Limits(**limits), Metrics(), judges=1)
    ask = schemas.of_record(runner.checked(schemas.of_record({**SEARCH, "simulations": simulations})))
    try:
        asyncio.run(search_job.run(runner, job, ask))
    finally:
        runner.close()
        runner.searchers._pool.shutdown(wait=True)
    return job.events


def test_wherever_a_search_is_cut_off_it_ends_as_one_that_was_not(parrot, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = Kept(tmp_path / "whole")
    do(parrot, MORSE, whole)
    names = [name for name, _ in told(whole)]
    assert not whole.search_log.exists()  # done: it takes no place
    job = Kept(tmp_path / "cut")
    second = names.index("crystal", names.index("crystal") + 1)
    last = len(names) - 1 - names[::-1].index("progress")
    for place in (second, last - 1, last):  # within the first round, before and behind the last one
        job.place = place
        with pytest.raises(CrystallmError, match="cannot be kept"):
            do(parrot, MORSE, job)
        if place == second:  # the search is ahead of what is told
            lines = job.search_log.read_text().splitlines(keepends=True)
            n = sum(json.loads(line)["round"] == 0 for line in lines)
            job.search_log.write_text("".join(lines[:n]) + "".join(lines[n:])[:100])  # as a kill leaves it
    job.place = None
    do(parrot, MORSE, job)
    assert told(job) == told(whole)
    assert job.known() == whole.known()


def told(job):
    """What a job has told of crystals and how far it is."""
    return [(name, data) for name, data in job.events if name in ("crystal", "curve", "progress")]


def test_a_crystal_that_had_no_energy_keeps_its_card_when_it_gets_one(parrot, tmp_path):
    job = Kept(tmp_path, place=2)
    with pytest.raises(CrystallmError, match="cannot be kept"):
        do(parrot, "energies:nan", job)
    silent = [data["number"] for name, data in job.events if name == "crystal"]
    assert silent
    job.place = None
    do(parrot, MORSE, job, 60)  # which is asked about those that are written again
    crystals = job.known()["crystals"]
    assert len({one["cif"] for one in crystals}) == len(crystals)
    mended = [crystals[number] for number in silent if crystals[number]["energy"] is not None]
    assert mended
    for one in mended:
        (known,) = Morse().predict([conversion.from_json(one["structure"])])
        assert one["energy"] == pytest.approx(known.energy)
        assert not one["energy_reason"]


def test_what_is_kept_of_a_search_and_cannot_be_read_fails_the_job(parrot, tmp_path):
    job = Kept(tmp_path)
    job.search_log.write_text('{"round": 0, "of": 2}\n{"round": 1, "of": 1}\n')
    with pytest.raises(CrystallmError, match="cannot be read or written: ask anew") as error:
        do(parrot, MORSE, job)
    assert str(tmp_path) not in str(error.value)


def test_an_energy_model_that_cannot_be_loaded_fails_the_job(parrot, tmp_path):
    with pytest.raises(CrystallmError, match="the weights are gone"):
        do(parrot, "energies:unloadable", Kept(tmp_path))


def test_a_model_without_energies_ends_a_search_and_says_why(parrot, tmp_path, monkeypatch):
    from crystallm.structure_search import search as structure_search_search

    monkeypatch.setattr(structure_search_search, "GIVE_UP", 1)
    events = do(parrot, "energies:nan", Kept(tmp_path))
    cards = [data for name, data in events if name == "crystal"]
    assert cards
    assert all(one["energy"] is None and one["energy_reason"] for one in cards)
    assert "curve" not in [name for name, _ in events]
    assert "ended early: energies:nan gave no energy" in events[-1][1]["note"]


def test_where_time_is_short_a_search_ends_with_what_it_has(parrot, tmp_path):
    events = do(parrot, MORSE, Kept(tmp_path), job_seconds=0.001)
    (progress, *_) = [data for name, data in reversed(events) if name == "progress"]
    done = progress["simulations"]
    assert done < 40
    assert f"ended early: {done} of 40 simulations" in events[-1][1]["note"]


def test_no_z_that_is_tried_passes_the_bound_on_atoms(parrot):
    import re

    from crystallm.models.load import load_model
    from crystallm.web import schemas
    from crystallm.web.jobs import search_job
    from crystallm.web.jobs.runner import JobRunner
    from crystallm.web.metrics import Metrics
    from crystallm.web.rate_limits import Limits

    model = load_model(str(parrot), device="cpu")
    open_z = {"formula": "TiO2", "z": "auto", "n": 8, "seed": 1}
    for atoms, most in ((3, 1), (8, 2)):
        runner = JobRunner({model.name: model}, [MORSE], Limits(atoms=atoms), Metrics(), judges=1)
        try:
            generate = schemas.of_record(runner.checked(schemas.Generate(kind="generate", **open_z)))
            search = schemas.of_record(runner.checked(schemas.Search(kind="search", **open_z)))
            notes = [runner._planned(model, generate)[0], search_job._search(runner, search).note]
        finally:
            runner.close()
        for note in notes:
            tried = [int(z) for z in re.findall(r"(\d+) \(", note)]
            assert tried
            assert max(tried) <= most


def test_a_server_without_energies_has_no_search():
    from crystallm.web.jobs import runner as jobs_runner
    from crystallm.web.metrics import Metrics
    from crystallm.web.rate_limits import Limits

    runner = jobs_runner.JobRunner({}, [], Limits(), Metrics(), judges=1)
    try:
        with pytest.raises(CrystallmError, match="no energy model") as error:
            runner._checked_energy(None, needed=True)
        assert error.value.field == "energy"
    finally:
        runner.close()
