"""Relatives are found, vote and are named."""

from __future__ import annotations

import pytest
from pymatgen.core.structure_matcher import StructureMatcher

from crystallm.orbits import description
from crystallm.references.library import Library
from crystallm.references.lookup import find_analogues
from known_crystals import library, member, with_elements


@pytest.mark.parametrize(
    ("counts", "prototype", "symbols"),
    [
        ({"Ge": 1, "O": 2}, "rutile", ("Ge", "O")),
        ({"Rb": 1, "Cl": 1}, "rocksalt", ("Rb", "Cl")),
        ({"Ca": 2, "Ti": 2, "O": 6}, "perovskite", ("Ca", "Ti", "O")),
        ({"Ge": 1}, "diamond", ("Ge",)),
    ],
)
def test_unknown_compounds_get_the_structure_of_their_relatives(counts, prototype, symbols) -> None:
    best = find_analogues(library(), counts, 5)[0]
    matcher = StructureMatcher()
    assert matcher.fit(description.to_structure(best.description), with_elements(prototype, symbols))


def test_candidates_name_the_known_crystal() -> None:
    best = find_analogues(library(), {"Ti": 2, "O": 4}, 5)[0]
    assert best.relative.id == "rutile-TiO"
    assert (best.relative.formula, best.relative.source, best.relative.distance) == ("TiO2", "textbook", 0)
    assert best.n_relatives == 3
    assert 0 < best.probability < 1
    far = find_analogues(library(), {"Ge": 1, "O": 2}, 1)[0]
    assert far.relative.formula == "SnO2"
    assert far.relative.distance > 0


def test_all_ways_to_match_roles_are_tried_and_the_likely_one_is_first() -> None:
    found = find_analogues(library(), {"Ca": 1, "Ti": 1, "O": 3}, 5)
    assert [one.description.space_group for one in found] == [221, 221]
    labels = [{orbit.element: orbit.label for orbit in one.description.orbits} for one in found]
    assert labels[0] != labels[1]
    assert 0 < sum(one.probability for one in found) < 1
    assert found[0].probability > found[1].probability


def test_space_group_and_z_may_be_given() -> None:
    by_group = find_analogues(library(), {"Be": 1, "O": 1}, 5, space_group=186)
    assert [one.description.space_group for one in by_group] == [186]
    by_z = find_analogues(library(), {"Be": 1, "O": 1}, 5, z=4)
    assert [one.description.space_group for one in by_z] == [225]
    assert find_analogues(library(), {"Be": 1, "O": 1}, 5, z=3) == []
    small = find_analogues(library(), {"Be": 1, "O": 1}, 5, max_atoms=4)
    assert [one.description.space_group for one in small] == [186]


def test_no_relative_is_no_candidate() -> None:
    assert find_analogues(library(), {"Be": 2, "O": 7}, 5) == []
    assert find_analogues(Library.of([]), {"Be": 1, "O": 1}, 5) == []


def test_a_prototype_of_one_s_own_is_found_without_training() -> None:
    """A made-up arrangement of proportions that no textbook crystal has."""
    from pymatgen.core import Lattice, Structure

    def made(symbols: tuple[str, ...]) -> Structure:
        return Structure.from_spacegroup(
            "P4/mmm",
            Lattice.tetragonal(4.1, 13.3),
            [symbols[0], symbols[1], symbols[2], symbols[2]],
            [[0, 0, 0], [0, 0, 0.31], [0.5, 0, 0.12], [0.5, 0.5, 0.5]],
        )

    from crystallm.references.prototypes import member_of

    mine = [("Ba", "Y", "S"), ("Sr", "La", "Se"), ("Ca", "Sc", "S")]
    own = Library.of(
        ("".join(symbols), "lab", member_of(description.describe(made(symbols)))) for symbols in mine
    )
    both = Library.joined([library(), own])
    best = find_analogues(both, {"Ba": 1, "La": 2, "S": 5}, 1)[0]
    assert StructureMatcher().fit(description.to_structure(best.description), made(("Ba", "La", "S")))


def test_relatives_at_other_coordinates_are_other_candidates() -> None:
    near, far = member("rutile", ("Ti", "O")), member("rutile", ("Mg", "F"))
    moved = type(far)(far.prototype, far.elements, ((), (120,)), far.cell)
    known = Library.of([("near", "a", near), ("far", "a", moved)])
    found = find_analogues(known, {"Sn": 1, "O": 2}, 5)
    assert [one.relative.id for one in found] == ["near", "far"]
