"""Structures of any format are checked, right-handed, and have each atom once."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm import cif
from crystallm.errors import TextError
from crystallm.language import get_language
from crystallm.sources import building, parsing
from crystallm.structures import conversion

CELL = [[3.0, 0, 0], [0, 3, 0], [0, 0, 4]]
QUARTZ = Structure.from_spacegroup(
    "P3_121",
    Lattice.hexagonal(4.913, 5.405),
    ["Si", "O"],
    [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.4525]],
)
SWAPPED = Structure(QUARTZ.lattice.matrix[[1, 0, 2]], QUARTZ.species, QUARTZ.frac_coords[:, [1, 0, 2]])
"""The same atoms on a left-handed basis."""


def rows(numbers):
    return "".join(" ".join(f"{x:.10f}" for x in row) + "\n" for row in numbers)


def test_a_left_handed_basis_is_the_same_crystal_in_every_language_and_format():
    assert np.linalg.det(SWAPPED.lattice.matrix) < 0
    assert "H-M P3_121\n" in cif.to_text(QUARTZ)
    assert "H-M P3_121\n" in cif.to_text(SWAPPED)
    assert get_language("orbits").encode(SWAPPED) == get_language("orbits").encode(QUARTZ)
    texts = {
        "cif": parsing.to_cif(SWAPPED),
        "poscar": f"x\n1\n{rows(SWAPPED.lattice.matrix)}Si O\n3 6\nDirect\n{rows(SWAPPED.frac_coords)}",
        "pymatgen": SWAPPED.to_json(),
        "extxyz": conversion.frame(SWAPPED),
    }
    for form, text in texts.items():
        found = parsing.structure(text, form)
        assert np.linalg.det(found.lattice.matrix) > 0, form
        assert "H-M P3_121\n" in cif.to_text(found), form


def test_shares_without_charges():
    assert building.shares([("Fe3+", 0.5), ("FE2+", 0.25)]) == {"Fe": 0.75}
    assert building.shares([("D", 0.35), ("H", 0.65)]) == {"H": 1.0}
    for parts, message in (
        ([("Na", 0)], "no share"),
        ([("Na", 0.7), ("K", 0.7)], "1.4 times"),
        ([], "no element"),
    ):
        with pytest.raises(TextError, match=message):
            building.shares(parts)


@pytest.mark.parametrize("axes", [True, [True, True, True], [1, 1, 1]])
def test_three_periodic_directions_are_a_crystal(axes):
    building.periodic(axes)


@pytest.mark.parametrize(
    "axes", [False, None, [], [True, True], [True, True, False], [1, 1, 0], "T T T", [None] * 3]
)
def test_anything_else_is_none(axes):
    with pytest.raises(TextError, match="not periodic"):
        building.periodic(axes)


def test_atoms_on_top_of_each_other_are_an_error():
    with pytest.raises(TextError, match=r"atoms 1 and 2 \(Na and Cl\) are on top of each other"):
        building.build(CELL, [{"Na": 1.0}, {"Cl": 1.0}], [[0, 0, 0.999], [0, 1, 0]], cartesian=False)


def test_whole_numbers_are_coordinates_in_angstrom():
    found = building.build(CELL, [{"Na": 1.0}, {"Cl": 1.0}], [[0, 0, 0], [1, 1, 2]], cartesian=True)
    assert found[1].frac_coords.tolist() == pytest.approx([1 / 3, 1 / 3, 0.5])


def test_a_cell_of_lengths_and_angles():
    lattice = {"a": 3, "b": 4, "c": 5, "alpha": 90, "beta": 90, "gamma": 90}
    assert np.linalg.det(building.cell_of_parameters(lattice)) == pytest.approx(60)
    with pytest.raises(TextError, match="neither a matrix"):
        building.cell_of_parameters(lattice | {"gamma": None})
    with pytest.raises(TextError, match="no volume"):
        building.cell([[1, 0, 0], [2, 0, 0], [0, 0, 1]])
