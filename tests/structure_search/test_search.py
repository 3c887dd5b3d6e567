"""Searches with an energy model of which one knows everything."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crystallm.cli import app
from crystallm.errors import CrystallmError
from crystallm.execution.pool import ProcessPool
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.load import load_model
from crystallm.storage.journal import Journal
from crystallm.structure_search import search as structure_search_search
from crystallm.structure_search.api import best_first, best_so_far
from crystallm.structure_search.options import EliteOptions, SearchOptions, TreeOptions, sampling_of
from crystallm.structure_search.search import Search


@pytest.fixture(scope="module", autouse=True)
def asked(tmp_path_factory):
    """Where `energies:told` notes what it is asked."""
    path = tmp_path_factory.mktemp("asked") / "asked"
    os.environ["CRYSTALLM_TEST_ASKED"] = str(path)
    yield path
    del os.environ["CRYSTALLM_TEST_ASKED"]


@pytest.fixture(scope="module")
def model(parrot):
    return load_model(str(parrot), device="cpu")


def search_options(**given):
    """Search options and sampling options of flat names, as the command line gives them."""
    groups = {"tree": TreeOptions, "elites": EliteOptions}
    own = {name: given.pop(name) for name in tuple(given) if name in SearchOptions.model_fields}
    for group, kind in groups.items():
        if some := {name: given.pop(name) for name in tuple(given) if name in kind.model_fields}:
            own[group] = some
    return SearchOptions.build(own), SamplingOptions.build(given)


@pytest.fixture(scope="module")
def a_search(model, asked):
    """Make a search for TiO2 with two formula units; all share one worker process, which starts slowly."""

    def make(path=None, **given):
        usual = {"energy": "energies:morse", "device": "cpu", "seed": 3, "temperature": 1.5, "top_k": None}
        method = given.get("method", "tree" if given.get("preset") == "paper" else "elites")
        # The parrot is too sure of itself for a tree with a cut-off.
        own = {"elites": {"warm_up": 6}, "tree": {"prior_cutoff": 1.0}, "sampling": {}}[method]
        options, settings = search_options(**{"parallel_simulations": 4, **usual, **own, **given})
        settings = sampling_of(options, settings)
        return Search(model, Request(formula="TiO2", z=2), options, settings, path, executor=pool)

    with ProcessPool(1) as pool:
        yield make


def texts(found):
    return [(one.crystal.ids, one.crystal.energy, one.call, one.equals, one.move) for one in found]


@pytest.mark.parametrize("method", ["elites", "tree", "sampling"])
def test_the_same_seed_gives_the_same_search_and_a_log_gives_it_again(a_search, tmp_path, method):
    first = a_search(method=method, simulations=20).run()
    assert len(first) == 20
    half = a_search(tmp_path / "log", method=method, simulations=12)
    half.run()
    content = (tmp_path / "log").read_bytes()
    # A kill in the middle of a line: the round is done again, and the search goes further.
    (tmp_path / "log").write_bytes(content + content.splitlines(keepends=True)[-1][:40])
    rounds = []
    whole = a_search(tmp_path / "log", method=method, simulations=20)
    whole.run(on_round=lambda state, _: rounds.append(state.simulations))
    assert rounds == [4, 8, 12, 16, 20]
    assert texts(whole.samples) == texts(first)
    assert [one.crystal.log_likelihood for one in whole.samples] == pytest.approx(
        [one.crystal.log_likelihood for one in first]
    )
    assert [one.seconds for one in whole.samples[:12]] == [one.seconds for one in half.samples]
    assert texts(a_search(method=method, simulations=20, seed=4).run()) != texts(first)


def test_a_log_of_another_search_is_refused(a_search, tmp_path):
    a_search(tmp_path / "log", simulations=8, method="tree").run()
    with pytest.raises(CrystallmError, match="does not follow from this model and seed"):
        a_search(tmp_path / "log", simulations=8, method="tree", seed=9).run()


def test_two_processes_do_not_write_one_log(a_search, tmp_path):
    stale = Journal(tmp_path / "log")
    with stale.held(), pytest.raises(CrystallmError, match="another process writes .* --out"):
        a_search(tmp_path / "log", simulations=4).run()
    a_search(tmp_path / "log", simulations=4).run()
    content = (tmp_path / "log").read_bytes()
    assert content.count(b"\n") == 4
    # Where there are no locks, what others have written since is left as it is.
    with pytest.raises(CrystallmError, match="has changed since it was read"):
        stale.append([{"a": 1}])
    assert (tmp_path / "log").read_bytes() == content


def test_equal_crystals_are_asked_once_and_energy_calls_are_a_bound(a_search, asked):
    asked.unlink(missing_ok=True)
    search = a_search(energy="energies:told", energy_calls=9, temperature=1.3, method="sampling")
    found = search.run()
    assert search.state.calls == 9
    assert len(asked.read_text().splitlines()) == 9
    calls = [one for one in found if one.call is not None]
    assert [one.call for one in calls] == list(range(1, 10))
    assert len({one.form for one in calls}) == 9
    repeats = [one for one in found if one.equals is not None]
    assert repeats  # the parrot repeats itself
    for one in repeats:
        assert found[one.equals].form == one.form
        assert (found[one.equals].call, one.crystal.energy) != (None, None)
        assert one.crystal.energy == found[one.equals].crystal.energy
    best = best_first(found)
    assert [crystal.rank for crystal in best] == list(range(1, len(best) + 1))
    assert best[0].energy == min(one.crystal.energy for one in calls)
    assert [crystal.energy for crystal in best] == sorted(crystal.energy for crystal in best)


def test_elites_go_on_from_what_is_good(a_search):
    search = a_search(simulations=60, explore_share=0.2, resample_share=0.4, mutation_share=0.3)
    found = search.run()
    moves = [one.move for one in found]
    assert set(moves[:6]) == {"sample"}
    assert {"sample", "resample", "mutate", "fit"} == set(moves)
    ids = [one.crystal.ids for one in found if one.move in ("mutate", "fit")]
    assert len(set(ids)) == len(ids)  # a change is new
    points = best_so_far(found)
    assert [energy for _, energy in points] == sorted((energy for _, energy in points), reverse=True)
    assert points[-1] == (search.state.calls, search.state.best)


def test_the_tree_of_the_paper_grows_by_choices_and_keeps_its_width(a_search):
    search = a_search(preset="paper", simulations=16, width=3, temperature=1.0)
    search.run()
    root = search._policy.root
    assert root.visits == 16
    todo = [root]
    n_nodes = 0
    while todo:
        node = todo.pop()
        n_nodes += 1
        assert node.pending == 0
        for edge in node.edges or []:
            assert edge.ids[: len(node.ids)] == node.ids
            # What is forced belongs to the edge: behind it there is a choice, or nothing.
            options = search._policy._prefixes.allowed(edge.ids)
            assert len(options) != 1
            if edge.node is not None:
                todo.append(edge.node)
        assert len(node.edges or []) <= 3
        assert sum(edge.prior for edge in node.edges or []) == pytest.approx(1.0 if node.edges else 0.0)
    assert n_nodes <= 17


def test_z_may_be_left_open(model):
    options, settings = search_options(energy="energies:morse", simulations=8, device="cpu", seed=1)
    for how in (options, options.model_copy(update={"method": "tree"})):
        found = Search(model, Request(formula="TiO2", z="auto"), how, settings).run()
        assert {one.crystal.source.z_probability is None for one in found} == {False}


def test_an_energy_model_that_dies_is_asked_again(a_search):
    """The model dies at each fifth crystal of its process; another process has the energy of that crystal."""
    search = a_search(energy="energies:mortal", energy_calls=11, method="sampling")
    found = search.run()
    assert [one.call for one in found if one.call and one.crystal.energy is None] == []
    assert max(one.call or 0 for one in found) == 11
    assert search.stopped == ""


def test_a_crystal_that_kills_each_process_has_no_energy(a_search):
    search = a_search(energy="energies:deadly", energy_calls=2, method="sampling")
    lost = [one for one in search.run() if one.call]
    assert [one.crystal.energy for one in lost] == [None, None]
    assert "exit" in lost[0].crystal.energy_reason or "died" in lost[0].crystal.energy_reason


@pytest.mark.parametrize(("energy", "reason"), [("energies:nan", "nan"), ("energies:sleeper", "0.3 s")])
def test_an_energy_model_that_never_answers_is_given_up(a_search, monkeypatch, energy, reason):
    monkeypatch.setattr(structure_search_search, "GIVE_UP", 2)
    search = a_search(energy=energy, simulations=400, energy_timeout=0.3, parallel_simulations=1)
    found = search.run()
    assert search.stopped.startswith(f"{energy} gave no energy for the last 2 crystals")
    assert reason in search.stopped
    assert best_first(found) == []
    assert best_so_far(found) == []


def test_a_search_without_an_end_in_sight_ends(a_search, monkeypatch):
    monkeypatch.setattr(structure_search_search, "IDLE", 12)
    search = a_search(energy_calls=10_000, temperature=0.0, method="sampling")
    search.run()
    assert "gave no new plausible crystal" in search.stopped


def test_a_search_is_idle_by_simulations_not_by_texts(a_search, monkeypatch):
    monkeypatch.setattr(structure_search_search, "IDLE", 12)
    search = a_search(energy_calls=10_000, temperature=0.0, rollouts=3, warm_up=1000)
    search.run()
    assert "gave no new plausible crystal" in search.stopped
    assert search.state.simulations >= 12


def test_what_had_no_energy_is_asked_again_once_the_model_is_mended(a_search, tmp_path):
    def some(energy, simulations):
        how = {"energy": energy, "simulations": simulations, "temperature": 1.0, "method": "sampling"}
        return a_search(tmp_path / "log", **how).run()

    lost = {one.form for one in some("energies:nan", 8) if one.call is not None}
    again = [one for one in some("energies:morse", 24)[8:] if one.crystal.validity.valid and one.form in lost]
    assert again
    assert all(one.crystal.energy is not None for one in again)
    # Going on once more, what has an energy by now is not asked a third time.
    forms = [one.form for one in some("energies:morse", 40)[8:] if one.call is not None]
    assert len(set(forms)) == len(forms)


@pytest.mark.skipif(importlib.util.find_spec("chgnet") is None, reason="chgnet is not installed")
def test_chgnet_finds_rutile_lowest(a_search):
    found = a_search(energy="chgnet", simulations=8, parallel_simulations=8, temperature=1.2).run()
    best = best_first(found)[0]
    assert best.space_group == "P4_2/mnm"
    assert -9.5 < best.energy < -9.0  # of the package's weights, near the known cell


def test_a_killed_search_goes_on_and_ends_like_one_never_killed(parrot, tmp_path):
    arguments = [
        "search", "TiO2", "--z", "2", "--simulations", "24", "--parallel-simulations", "2",
        "--energy", "energies:told",
        "--model", str(parrot), "--temperature", "1.5", "--seed", "5", "--device", "cpu", "--quiet", "--out",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    # It waits behind the eighth crystal, so that it cannot be done before it is killed.
    environment = os.environ | {"PYTHONPATH": path, "CRYSTALLM_TEST_WAITS": "8"}
    command = [sys.executable, "-m", "crystallm", *arguments]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
    log = tmp_path / "killed" / "search.jsonl"
    until = time.monotonic() + 300
    while time.monotonic() < until and not (log.exists() and log.read_bytes().count(b"\n") >= 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = log.read_bytes()
    assert 4 <= done.count(b"\n") < 24
    for name in ("killed", "whole"):
        assert app.run([*arguments, str(tmp_path / name)]) == 0
    assert log.read_bytes()[: done.rfind(b"\n")] == done[: done.rfind(b"\n")]  # nothing is found twice
    killed, whole = (
        [json.loads(line) for line in (tmp_path / name / "search.jsonl").read_text().splitlines()]
        for name in ("killed", "whole")
    )
    for line in (*killed, *whole):
        del line["seconds"]
    assert killed == whole
    files = [sorted(p.name for p in (tmp_path / name / "cifs").iterdir()) for name in ("killed", "whole")]
    assert files[0] == files[1]
    assert len(files[0]) == sum(line["call"] is not None for line in whole)
