"""Samples of a search: equal ones, counts, and the reward of invalid ones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from crystallm.structure_search.results import SearchResults, SearchSample, invalid_reward
from crystallm.validity.verdict import Validity


@dataclass
class Sampled:
    """A crystal of known ids and validity."""

    ids: tuple[int, ...]
    validity: Validity
    energy: float | None = None
    energy_reason: str | None = None
    objective: float | None = None


def sample(form, ids, *, valid=True, simulation=0):
    validity = Validity(
        sensible=valid,
        formula=True,
        multiplicity=True,
        bond_score=1.0,
        space_group=True,
        valid=valid,
        reasons=(),
        plausible=valid,
    )
    made = SearchSample(Sampled(ids, validity), simulation, 0.0, "sample")
    made.__dict__["form"] = form
    return made


@pytest.fixture
def results():
    return SearchResults()


def test_equal_crystals_have_one_energy_call(results):
    first = [sample("A", (1,)), sample("B", (2,)), sample("A", (3,)), sample("C", (4,), valid=False)]
    assert results.set_equals(first) == first[:2]
    assert [one.call for one in first] == [1, 2, None, None]
    assert [one.equals for one in first] == [None, None, 0, None]
    first[0].crystal.objective, first[1].crystal.objective = -3.0, -4.0
    results.copy_energies(first)
    assert first[2].crystal.objective == -3.0
    results.add_round([first[:2], first[2:]])
    later = [sample("D", (3,)), sample("B", (9,))]  # the same tokens as before; another sequence of B
    assert results.set_equals(later) == []
    assert [one.equals for one in later] == [0, 1]
    results.copy_energies(later)
    assert [one.crystal.objective for one in later] == [-3.0, -4.0]
    state = results.state
    assert (state.simulations, state.calls, state.texts, state.plausible, state.best) == (2, 2, 4, 3, -4.0)


def test_a_round_of_duplicates_is_idle_and_failures_count_until_an_energy_comes(results):
    for number, (form, energy) in enumerate([("A", None), ("B", None), ("B", None), ("C", -1.0)]):
        one = sample(form, (number,), simulation=number)
        results.set_equals([one])
        one.crystal.energy = one.crystal.objective = energy
        results.add_round([[one]])
        assert (results.n_failed, results.n_idle) == [(1, 0), (2, 0), (2, 1), (0, 0)][number]


def test_failed_energies_are_computed_again_after_a_restart(results):
    one = sample("A", (1,))
    results.set_equals([one])
    results.add_round([[one]])
    assert results.set_equals([sample("A", (1,))]) == []
    results.retry_failed()
    again = sample("A", (1,))
    assert results.set_equals([again]) == [again]


def test_the_reward_of_an_invalid_crystal_is_its_share_of_bad_bonds():
    def of(**wrong):
        rest = {"sensible": True, "formula": True, "multiplicity": True, "space_group": True}
        validity = Validity(**{"bond_score": 0.75, "valid": False, "reasons": ("bad",), **rest, **wrong})
        return invalid_reward(type("", (), {"validity": validity})())

    assert of() == -0.25
    assert of(space_group=False) == -1.0
    assert of(bond_score=None) == -1.0
    assert of(bond_score=1.0, valid=True) == -1.0  # valid, and the energy model failed
