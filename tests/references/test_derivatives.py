"""Candidates made of crystals with one element more or less."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystallm.orbits import description
from crystallm.references.candidates import Filter, element_costs, find_candidates
from crystallm.references.derivatives import described, find_derivatives, patterns
from crystallm.references.library import Library
from crystallm.references.lookup import find_analogues
from crystallm.references.prototypes import member_of
from known_crystals import library, member, with_elements

if TYPE_CHECKING:
    from pymatgen.core import Structure

ANY = Filter()


def merged_perovskite() -> Structure:
    """Mg2F3: magnesium on both positions of the cations of a perovskite."""
    return with_elements("perovskite", ("Mg", "Mg", "F"))


def first(known: Library, counts: dict[str, int], wanted: Filter = ANY) -> Structure:
    made = described(known, find_derivatives(known, counts, wanted)[0], wanted)
    assert made is not None
    return description.to_structure(made)


def test_one_element_plays_two_roles() -> None:
    known = Library.of([("perovskite", "lab", member("perovskite", ("Zn", "Mg", "F")))])
    assert not len(find_candidates(known, {"Mg": 2, "F": 3}, ANY))
    found = find_derivatives(known, {"Mg": 4, "F": 6}, ANY)
    assert {one.species for one in found} == {("Mg", "Mg", "F")}
    assert StructureMatcher().fit(first(known, {"Mg": 2, "F": 3}), merged_perovskite())


def test_two_elements_share_the_positions_of_a_role() -> None:
    known = Library.of([("Mg2F3", "lab", member_of(description.describe(merged_perovskite())))])
    made = first(known, {"Zn": 1, "Mg": 1, "F": 3})
    perovskites = [with_elements("perovskite", names) for names in (("Zn", "Mg", "F"), ("Mg", "Zn", "F"))]
    assert any(StructureMatcher().fit(made, one) for one in perovskites)


def test_positions_are_shared_by_counts() -> None:
    """F on 3 of 4 equal places is one position, so F3 cannot be shared by two elements of 1 and 2."""
    known = Library.of([("Mg2F3", "lab", member_of(description.describe(merged_perovskite())))])
    assert find_derivatives(known, {"Mg": 2, "F": 2, "Cl": 1}, ANY) == []


def test_the_symmetry_of_merged_elements_rises() -> None:
    """Rock salt with one element is simple cubic, of an eighth of the cell."""
    known = Library.of([("NaK", "lab", member("rocksalt", ("Na", "K")))])
    derivative = find_derivatives(known, {"Na": 1}, ANY)[0]
    made = described(known, derivative, ANY)
    assert made is not None
    assert (made.space_group, made.composition) == (221, (("Na", 1),))
    assert described(known, derivative, Filter(space_group=225)) is None
    assert described(known, derivative, Filter(space_group=221)) == made


def test_z_counts_formula_units_of_the_composition() -> None:
    known = Library.of([("NaK", "lab", member("rocksalt", ("Na", "K")))])
    assert find_derivatives(known, {"Na": 1}, Filter(z=8))
    assert find_derivatives(known, {"Na": 1}, Filter(z=4)) == []


def test_known_crystals_with_unlike_elements_are_left_out() -> None:
    known = Library.of([("perovskite", "lab", member("perovskite", ("Zn", "Mg", "F")))])
    assert find_derivatives(known, {"Cs": 2, "Au": 3}, ANY) == []


@pytest.mark.parametrize(
    "counts", [{"Ti": 1, "O": 2}, {"Li": 1, "Mn": 2, "F": 7}, {"K": 2, "Al": 4, "Si": 6, "O": 20}]
)
def test_patterns_add_up(counts: dict[str, int]) -> None:
    """Each pattern has the composition, and costs what the composition does where all elements stay."""
    total = element_costs(list(counts.values()), list(counts)).sum(0)
    for pattern in patterns(counts):
        assert len(pattern.proportions) == len(counts) + (
            1 if all(len(p) == 1 for p in pattern.players) else -1
        )
        assert list(pattern.proportions) == sorted(pattern.proportions)
        found: dict[str, int] = {}
        for players, numbers in zip(pattern.players, pattern.counts, strict=True):
            for player, number in zip(players, numbers, strict=True):
                found[player] = found.get(player, 0) + number
        divisor = math.gcd(*found.values())
        unit = math.gcd(*counts.values())
        assert {name: n // divisor for name, n in found.items()} == {
            name: n // unit for name, n in counts.items()
        }
        assert pattern.costs.sum(0) == pytest.approx(total, nan_ok=True)


def test_a_lookup_finds_derivatives_and_says_of_what() -> None:
    known = Library.joined(
        [library(), Library.of([("ZnMgF3", "lab", member("perovskite", ("Zn", "Mg", "F")))])]
    )
    (best,) = find_analogues(known, {"Mg": 2, "F": 3}, 5)
    assert (best.relative.id, best.relative.formula) == ("ZnMgF3", "MgZnF3")
    assert 0 < best.probability < 1
    assert find_analogues(known, {"Mg": 2, "F": 3}, 5, z=2) == []
    assert sum(one.probability for one in find_analogues(known, {"Ti": 1, "O": 2}, 20)) < 1
