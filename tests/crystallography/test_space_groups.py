"""The table of space groups against spglib."""

from __future__ import annotations

import numpy as np
import pytest
import spglib

from crystallm.crystallography import space_groups
from crystallm.errors import InputError

NUMBERS = range(1, 231)


def cell_matrix(parameters):
    a, b, c, alpha, beta, gamma = parameters
    al, be, ga = np.radians([alpha, beta, gamma])
    cx, cy = c * np.cos(be), c * (np.cos(al) - np.cos(be) * np.cos(ga)) / np.sin(ga)
    return np.array(
        [[a, 0, 0], [b * np.cos(ga), b * np.sin(ga), 0], [cx, cy, np.sqrt(c * c - cx * cx - cy * cy)]]
    )


GENERIC = {"a": 9.13, "b": 10.37, "c": 12.71, "alpha": 81.3, "beta": 97.9, "gamma": 104.2}


@pytest.mark.parametrize("number", NUMBERS)
def test_operators_are_spglibs_default_setting(number):
    group = space_groups.get(number)
    hall = next(h for h in range(1, 531) if spglib.get_spacegroup_type(h).number == number)
    table = spglib.get_symmetry_from_database(hall)
    assert np.array_equal(group.rotations, table["rotations"])
    assert np.allclose(group.translations, table["translations"] % 1)
    assert group.symbol == spglib.get_spacegroup_type(hall).international_short


@pytest.mark.parametrize("number", NUMBERS)
def test_every_wyckoff_position_is_what_spglib_finds(number):
    """A generic orbit fixes the group; atoms on each position then get spglib's own letter."""
    group = space_groups.get(number)
    lattice = cell_matrix(group.complete_cell({k: GENERIC[k] for k in group.free_cell}))
    rng = np.random.default_rng(number)
    general = group.orbit(rng.random(3))
    assert len(general) == len(group.rotations) == group.wyckoff[-1].multiplicity
    for position in group.wyckoff[:-1]:
        orbit = group.orbit(position.point(rng.random(len(position.free))))
        assert len(orbit) == position.multiplicity
        cell = (lattice, np.vstack([general, orbit]), [1] * len(general) + [2] * len(orbit))
        found = spglib.get_symmetry_dataset(cell, symprec=1e-5)
        assert found.number == number
        identity = np.allclose(found.transformation_matrix, np.eye(3)) and np.allclose(found.origin_shift, 0)
        if identity:  # else spglib chose an equivalent origin, where letters may be permuted
            assert found.wyckoffs[-1].replace("α", "A") == position.letter


@pytest.mark.parametrize("number", NUMBERS)
def test_normaliser_maps_orbits_to_orbits(number):
    group = space_groups.get(number)
    point = np.random.default_rng(number).random(3)
    for w, s in zip(*group.normaliser, strict=True):
        moved = group.orbit(point) @ w.T + s
        orbit = group.orbit(moved[0])
        for p in moved:
            off = orbit - p
            assert np.abs(off - np.rint(off)).max(axis=1).min() < 1e-9


@pytest.mark.parametrize("number", NUMBERS)
def test_letter_maps_name_the_position_that_the_normaliser_moves_each_onto(number):
    group = space_groups.get(number)
    values = (0.1234, 0.2871, 0.3917)
    for letters, w, s in zip(group.letter_maps, *group.normaliser, strict=True):
        for position, index in zip(group.wyckoff, letters, strict=True):
            moved = w @ position.point(values[: len(position.free)]) + s
            found = group.snap(moved, position.multiplicity, 1e-6)
            assert found is not None
            assert found[0] is group.wyckoff[index]


@pytest.mark.parametrize("number", [1, 14, 62, 139, 166, 187, 194, 225, 227, 230])
def test_snap_brings_rounded_points_back(number):
    group = space_groups.get(number)
    rng = np.random.default_rng(number)
    for position in group.wyckoff:
        exact = group.orbit(position.point(rng.random(len(position.free))))
        point = exact[rng.integers(len(exact))]
        found = group.snap(np.round(point, 4), position.multiplicity, 2e-4)
        assert found is not None
        assert len(group.orbit(found[1], 1e-6)) == position.multiplicity
        off = found[1] - point
        assert np.abs(off - np.rint(off)).max() < 3e-4


@pytest.mark.parametrize("name", ["P4_2/mnm", "P42/mnm", "P 42/m n m", "136", 136])
def test_names_of_a_group(name):
    assert space_groups.get(name).number == 136


def test_plain_symbols_are_distinct():
    assert len({space_groups._plain(s) for s in space_groups.symbols()}) == 230


@pytest.mark.parametrize("name", ["Fm3q", "", "0", "231", "-1", "Pm3"])
def test_no_such_group(name):
    with pytest.raises(InputError, match="no space group"):
        space_groups.get(name)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("Pbnm", 62), ("P2_1/n", 14), ("P21/a", 14), ("I2/a", 15), ("B 2/b", 15), ("P121/n1", 14),
        ("P 1 21/c 1", 14), ("Cmca", 64), ("Bmab", 64), ("Abm2", 39), ("Aba2", 41), ("Ccca", 68),
        ("Fm3m", 225), ("Pa3", 205),
        ("Fd-3m:2", 227), ("R-3m:H", 166), ("R-3mH", 166), ("I41/amdZ", 141), ("fm-3m", 225), ("p21/c", 14),
        ("Fm\u22123m", 225), ("Fm3\u0305m", 225), ("P4\u2082/mnm", 136), ("no. 225", 225),
        ("#225", 225), ("225", 225),
    ],
)  # fmt: skip
def test_what_group_a_person_means(name, number):
    assert space_groups.from_any_setting(name).number == number


def test_each_symbol_means_its_own_group():
    for symbol in space_groups.symbols():
        plain = symbol.replace("_", "")
        assert [space_groups.from_any_setting(name).symbol for name in (symbol, plain, plain.lower())] == [
            symbol
        ] * 3


@pytest.mark.parametrize("name", ["Fm3q", "", "cubic", "231", "no. 231", "R-3m:R", "Pbnm2"])
def test_no_group_is_meant(name):
    with pytest.raises(InputError, match="no space group"):
        space_groups.from_any_setting(name)


def test_symbols_beside_atoms_stay_strict():
    """A CIF in Pbnm has other axes than one in Pnma."""
    with pytest.raises(InputError, match="'Pbnm'"):
        space_groups.get("Pbnm")
