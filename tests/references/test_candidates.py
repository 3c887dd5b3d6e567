"""Relatives, and the candidates that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.crystallography import elements
from crystallm.references.candidates import Candidates, Filter, find_candidates, same_arrangement
from crystallm.references.prototypes import CrystalType
from known_crystals import library

BEO, SPINEL = {"Be": 1, "O": 1}, {"Mg": 1, "Al": 2, "O": 4}


def candidates(counts: dict[str, int], *given: int | None, **options: int) -> Candidates:
    return find_candidates(library(), counts, Filter(*given), **options)


def ids(found: Candidates) -> list[str]:
    return [library().id(row) for row in found.rows]


def test_relatives_are_sorted_and_stand_for_the_candidate_of_their_structure() -> None:
    found = candidates(BEO)
    assert sorted(found.groups.tolist()) == [186, 225]
    assert len(found.distances) == len(found.members) == len(found.relatives) == 14  # both ways each
    assert (np.diff(found.distances) >= 0).all()
    sizes = np.bincount(found.members)
    assert sizes[found.groups.tolist().index(225)] == 8
    assert sizes[found.groups.tolist().index(186)] == 6


def test_elements_of_relatives_stand_on_the_roles_of_the_composition() -> None:
    found = candidates({"Ca": 1, "Ti": 1, "O": 3})
    oxygen = [elements.get(symbol).number for symbol in ("O", "F")]
    assert found.names[0][-1] == "O"
    assert set(found.relatives[:, 2].tolist()) <= set(oxygen)
    assert found.shares.tolist() == pytest.approx([0.2, 0.2, 0.6])
    assert found.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ((186,), {186}),
        ((None, 4), {225}),
        ((None, None, 4), {186}),
        ((None, None, None, 2), {225}),
        ((225, 2), set()),
        ((), {186, 225}),
    ],
)
def test_all_candidates_have_what_is_wanted(given, groups) -> None:
    found = candidates(BEO, *given)
    assert set(found.groups.tolist()) == groups
    assert found.features.shape == (len(found), 10)


def test_a_row_may_be_left_out() -> None:
    counts = {"Ti": 1, "O": 2}
    row = ids(candidates(counts)).index("rutile-TiO")
    row = candidates(counts).rows[row]
    without = candidates(counts, without=row)
    assert "rutile-TiO" not in ids(without)
    assert np.exp(3 * without.features[0, 4]) == pytest.approx(2)  # nor is it counted


def test_proportions_that_nothing_has_give_no_candidate() -> None:
    assert len(candidates(SPINEL)) == 0


def test_features_of_rutile() -> None:
    found = candidates({"Ge": 1, "O": 2})
    atoms, orbits, free, cell, *_, own = found.features[0].tolist()
    assert np.exp(2 * atoms) == pytest.approx(6)
    assert (orbits * 5, free * 5, cell * 3) == pytest.approx((2, 1, 2))
    assert own == 0
    assert candidates({"Ti": 1, "O": 2}).features[0, -1] == 1


def test_the_same_arrangement_is_recognized_among_others() -> None:
    known = library()
    row = next(i for i in range(len(known)) if known.id(i) == "perovskite-SrTiO")
    found = candidates({"Sr": 1, "Ti": 1, "O": 3}, without=row)
    right = [same_arrangement(known, row, found, i) for i in range(len(found))]
    assert sum(right) == 1
    assert found.names[right.index(True)] == found.names[0]


def test_without_the_known_crystals_of_the_formula_their_candidates_stay() -> None:
    found = candidates({"Ti": 1, "O": 2})
    other = found.without_known()
    assert found.known().tolist() == [1]
    assert other.known().tolist() == [0]
    assert len(other.distances) == len(found.distances) - 1
    assert other.rows == found.rows
    assert other.features[0, -1] == 0
    assert np.exp(other.features[0, 5]) == pytest.approx(len(found.distances) - 1)


def test_the_model_of_a_glass_is_no_relative_unless_p1_is_requested() -> None:
    def cell(n: int, space_group: int = 1) -> CrystalType:
        return CrystalType((1, 2), space_group, tuple((role, 0) for role in (0,) * n + (1,) * 2 * n))

    assert not Filter().accepts(cell(12))
    assert Filter(space_group=1).accepts(cell(12))
    assert Filter().accepts(cell(5))
    assert Filter().accepts(cell(12, space_group=2))
