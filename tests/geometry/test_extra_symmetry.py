"""Crystals that surely have no more symmetry than the group they were made with: spglib has to agree."""

from __future__ import annotations

import numpy as np
import pytest
import spglib

from crystallm.crystallography import cells, space_groups
from crystallm.geometry import contacts, extra_symmetry
from crystallm.orbits import description as orbits_description
from real_crystals import structures


def parts(structure):
    """Arguments of `has_none` and of spglib for a structure."""
    numbers = np.array([site.specie.Z for site in structure])
    kinds = np.unique(numbers, return_inverse=True)[1]
    return structure.lattice.matrix, structure.frac_coords, numbers, kinds


def operators(number):
    """Rotations and translations (in 24ths) of a group."""
    group = space_groups.get(number)
    shifts = np.rint(group.translations * space_groups.UNIT).astype(int) % space_groups.UNIT
    return {(*r.ravel().tolist(), *t.tolist()) for r, t in zip(group.rotations, shifts, strict=True)}


def written_again():
    """Published crystals as the orbits language writes them, with their groups, from tetragonal ones on."""
    for structure in structures()[::2]:
        description = orbits_description.describe(structure)
        if description.space_group >= 75:
            yield orbits_description.to_structure(description), description.space_group


def test_spglib_agrees_on_published_crystals():
    sure = seen = 0
    for structure, number in written_again():
        vectors, points, numbers, kinds = parts(structure)
        seen += 1
        if extra_symmetry.has_none(number, vectors, points, kinds):
            sure += 1
            found = spglib.get_symmetry_dataset((vectors, points, numbers), symprec=contacts.SYMPREC)
            assert found.number == number
    assert sure > 0.5 * seen  # the others are rhombohedral, nearly cubic, or large


def test_a_crystal_has_more_symmetry_than_a_subgroup_of_its_group():
    """Told in fewer operators of the same cell, it is never sure to have no more than these."""
    seen = 0
    for structure, number in list(written_again())[::3]:
        vectors, points, _, kinds = parts(structure)
        for subgroup in range(75, 231):
            if operators(subgroup) < operators(number):
                assert not extra_symmetry.has_none(subgroup, vectors, points, kinds)
                seen += 1
    assert seen > 20


def test_every_operator_of_a_group_is_one_of_its_lattice():
    asked = [number for number in range(1, 231) if extra_symmetry._operators(number) is None]
    assert asked == [*range(1, 75), 146, 148, 155, 160, 161, 166, 167]


def test_what_spglib_takes_for_more_symmetry_is_never_surely_none():
    """A stretched barium titanate, its titanium 0.04 to 0.24 Å off the centre."""
    numbers, kinds = np.array([56, 22, 8, 8, 8]), np.array([0, 1, 2, 2, 2])
    vectors = cells.lattice((4.0, 4.0, 6.8, 90, 90, 90))
    found = {}
    for off in (0.04, 0.08, 0.12, 0.14, 0.2, 0.24):  # Å
        points = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
        points[1, 2] += off / 6.8
        sure = extra_symmetry.has_none(99, vectors, points, kinds)
        found[off] = spglib.get_symmetry_dataset((vectors, points, numbers), symprec=contacts.SYMPREC).number
        assert not sure or found[off] == 99, off
    assert set(found.values()) == {99, 123}


@pytest.mark.parametrize(
    ("number", "cell", "points"),
    [
        (123, (4.0, 4.0, 5.66, 90, 90, 90), [[0, 0, 0], [0.5, 0.5, 0.5]]),  # rock salt or nearly so
        (221, (4.0, 4.0, 4.0, 90, 90, 90), [[0, 0, 0], [0.5, 0.5, 0.5]]),  # one kind of atom: a finer lattice
        (215, (4.0, 4.0, 4.0, 90, 90, 90), [[0, 0, 0]]),  # a mirror more
        (183, (3.0, 3.0, 5.0, 90, 90, 120), [[0, 0, 0.01]]),  # polar in name only
        (99, (3.0, 3.0, 5.0, 90, 90, 90), [[0, 0, 0.0], [0.5, 0.5, 0.52]]),  # within the tolerance of it
    ],
)
def test_more_symmetry_is_never_overlooked(number, cell, points):
    points = np.array(points, dtype=float)
    kinds = np.zeros(len(points), dtype=int)
    assert not extra_symmetry.has_none(number, cells.lattice(cell), points, kinds)
