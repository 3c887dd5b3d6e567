"""Searches over HTTP: their crystals and curve, their turn, and how they end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from crystallm import matching
from crystallm.errors import CrystallmError
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
        (known,) = Morse().predict([matching.unpack(one["structure"])])
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
        assert "ask again" in state["message"]
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


def do(parrot, energy, **limits):
    """The events of a search that is run here."""
    from crystallm.checkpoint import load_model
    from crystallm.web import asks, searching
    from crystallm.web.limits import Limits
    from crystallm.web.metrics import Metrics
    from crystallm.web.runners import Runner

    model = load_model(str(parrot), device="cpu")
    runner = Runner({model.name: model}, [energy], Limits(**limits), Metrics(), judges=1)
    events = []
    job = SimpleNamespace(
        tell=lambda event, data: events.append((event, data)),
        enter=lambda state, **more: events.append(("state", more)),
    )
    ask = asks.of_record(runner.checked(asks.of_record(SEARCH)))
    try:
        asyncio.run(searching.run(runner, job, ask))
    finally:
        runner.close()
    return events


def test_an_energy_model_that_cannot_be_loaded_fails_the_job(parrot):
    with pytest.raises(CrystallmError, match="the weights are gone"):
        do(parrot, "energies:unloadable")


def test_a_model_without_energies_ends_a_search_and_says_why(parrot, monkeypatch):
    from crystallm import searching

    monkeypatch.setattr(searching, "GIVE_UP", 1)
    events = do(parrot, "energies:nan")
    cards = [data for name, data in events if name == "crystal"]
    assert cards
    assert all(one["energy"] is None and one["energy_reason"] for one in cards)
    assert "curve" not in [name for name, _ in events]
    assert "ended early: energies:nan gave no energy" in events[-1][1]["note"]


def test_where_time_is_short_a_search_ends_with_what_it_has(parrot):
    events = do(parrot, MORSE, job_seconds=0.001)
    (progress, *_) = [data for name, data in reversed(events) if name == "progress"]
    done = progress["simulations"]
    assert done < 40
    assert f"ended early: {done} of 40 simulations" in events[-1][1]["note"]


def test_no_z_that_is_tried_passes_the_bound_on_atoms(parrot):
    import re

    from crystallm.checkpoint import load_model
    from crystallm.web import asks, searching
    from crystallm.web.limits import Limits
    from crystallm.web.metrics import Metrics
    from crystallm.web.runners import Runner

    model = load_model(str(parrot), device="cpu")
    open_z = {"formula": "TiO2", "z": "auto", "n": 8, "seed": 1}
    for atoms, most in ((3, 1), (8, 2)):
        runner = Runner({model.name: model}, [MORSE], Limits(atoms=atoms), Metrics(), judges=1)
        try:
            generate = asks.of_record(runner.checked(asks.Generate(kind="generate", **open_z)))
            search = asks.of_record(runner.checked(asks.Search(kind="search", **open_z)))
            notes = [runner._planned(model, generate)[0], searching._search(runner, search).note]
        finally:
            runner.close()
        for note in notes:
            tried = [int(z) for z in re.findall(r"(\d+) \(", note)]
            assert tried
            assert max(tried) <= most


def test_a_server_without_energies_has_no_search():
    from crystallm.web import runners
    from crystallm.web.limits import Limits
    from crystallm.web.metrics import Metrics

    runner = runners.Runner({}, [], Limits(), Metrics(), judges=1)
    try:
        with pytest.raises(CrystallmError, match="no energy model") as error:
            runner._checked_energy(None, needed=True)
        assert error.value.field == "energy"
    finally:
        runner.close()
