"""Structure classes of crystals: detected in any cell, rejected for other structures."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from crystallm.analysis.prototypes import PROTOTYPES, classify
from crystallm.cif import parser
from real_crystals import published, told_otherwise

SKEW = [[1, 1, 0], [0, 1, 0], [0, 1, 1]]


DOUBLE = [[1, 0, 0], [0, 2, 0], [0, 0, 1]]


LEFT = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def make(group: str, lattice: Lattice, species: str, coords: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, lattice, species.split(), coords)


@cache
def examples() -> dict[str, tuple[Structure, tuple[str, ...]]]:
    """One compound a class, and its elements in the order of the roles.

    Lengths in Å and free coordinates are rounded from what is measured of rutile, spinel, elpasolite, Y2Ti2O7
    and SrTiO3.
    """
    corner, middle, eighth = [0, 0, 0], [0.5, 0.5, 0.5], [1 / 8] * 3
    y_ti_o = [middle, corner, [0.329, 1 / 8, 1 / 8], [3 / 8] * 3]
    return {
        "rutile": (
            make("P4_2/mnm", Lattice.tetragonal(4.594, 2.958), "Ti O", [corner, [0.306, 0.306, 0]]),
            ("Ti", "O"),
        ),
        "spinel": (
            make("Fd-3m:2", Lattice.cubic(8.08), "Mg Al O", [eighth, middle, [0.2624] * 3]),
            ("Mg", "Al", "O"),
        ),
        "elpasolite": (
            make("Fm-3m", Lattice.cubic(8.119), "K Na Al F", [[0.25] * 3, middle, corner, [0.219, 0, 0]]),
            ("K", "Na", "Al", "F"),
        ),
        "pyrochlore": (
            make("Fd-3m:2", Lattice.cubic(10.09), "Y Ti O O", y_ti_o),
            ("Y", "Ti", "O"),
        ),
        "perovskite": (
            make("Pm-3m", Lattice.cubic(3.905), "Sr Ti O", [middle, corner, [0.5, 0, 0]]),
            ("Sr", "Ti", "O"),
        ),
    }


@pytest.fixture(scope="module")
def crystals() -> dict[str, Structure]:
    return {name: structure for name, (structure, _) in examples().items()}


@pytest.mark.parametrize("name", PROTOTYPES)
@pytest.mark.parametrize("cell", [SKEW, DOUBLE, LEFT], ids=["skew", "double", "left-handed"])
def test_a_class_is_seen_however_the_crystal_is_told(name, cell):
    crystal, placed = examples()[name]
    for told in (
        crystal,
        crystal.get_primitive_structure(),
        told_otherwise(crystal, np.random.default_rng(1), cell),
    ):
        found = classify(told)
        assert found is not None
        assert (found.name, found.elements) == (name, placed)
        assert (found.a, found.c) == pytest.approx((crystal.lattice.a, crystal.lattice.c), abs=1e-4)
        assert Composition(found.formula).reduced_formula == crystal.composition.reduced_formula


@pytest.mark.parametrize("name", PROTOTYPES)
def test_small_displacements_and_other_sizes_are_of_the_class_and_large_ones_not(name, crystals):
    slightly, strongly, larger = (crystals[name].copy() for _ in range(3))
    slightly.perturb(0.01, seed=1)
    strongly.perturb(0.4, seed=1)
    larger.scale_lattice(1.4 * larger.volume)
    assert classify(slightly).name == name
    assert classify(strongly) is None
    assert classify(larger).name == name


@pytest.mark.parametrize("name", PROTOTYPES)
def test_a_strained_cell_is_of_another_group(name, crystals):
    strained = crystals[name].copy()
    strained.apply_strain([0.06, 0, -0.04])
    assert classify(strained) is None


@pytest.mark.parametrize("name", PROTOTYPES)
def test_cations_and_anions_in_each_others_places_are_no_class(name, crystals):
    # Antirutiles and antiperovskites such as Sr3SnO are types of their own.
    swapped = crystals[name].copy()
    anion = {"elpasolite": "F"}.get(name, "O")
    cation = {"rutile": "Ti", "spinel": "Al", "elpasolite": "K", "pyrochlore": "Y", "perovskite": "Ti"}[name]
    swapped.replace_species({anion: cation, cation: anion})
    assert classify(swapped) is None


def test_the_two_cations_of_a_perovskite_and_a_pyrochlore_are_told_apart(crystals):
    for name, pair in (("perovskite", ("Sr", "Ti")), ("pyrochlore", ("Y", "Ti"))):
        swapped = crystals[name].copy()
        swapped.replace_species({pair[0]: pair[1], pair[1]: pair[0]})
        found = classify(swapped)
        assert found is not None
        assert found.elements[:2] == (pair[1], pair[0])


def test_right_positions_with_wrong_coordinates_are_no_class():
    # Molecules of SeI2 in the group of rutile, and an elpasolite whose halide sits by one cation.
    cell = Lattice.tetragonal(8.0, 3.72)
    assert classify(make("P4_2/mnm", cell, "Se I", [[0, 0, 0], [0.235, 0.235, 0]])) is None
    sites = [[0.25] * 3, [0.5] * 3, [0] * 3, [0.15, 0, 0]]
    assert classify(make("Fm-3m", Lattice.cubic(9), "K Na Al F", sites)) is None


def test_other_compositions_metals_and_elements_beyond_the_languages_are_no_class(textbook_structures):
    for name in ("rocksalt", "wurtzite", "diamond"):
        assert classify(textbook_structures[name]) is None
    carbide = [[0.5] * 3, [0] * 3, [0.5, 0, 0]]
    assert classify(make("Pm-3m", Lattice.cubic(4.1), "Sc B Rh", carbide)) is None
    assert classify(make("Pm-3m", Lattice.cubic(4.1), "Po Ti O", carbide)) is None
    shared = Structure(Lattice.cubic(4), [{"Sr": 0.5, "Ba": 0.5}, "Ti"], [[0] * 3, [0.5] * 3])
    assert classify(shared) is None


def test_freak_cells_are_no_class():
    for lattice in (Lattice.orthorhombic(1e-4, 1e-4, 5), Lattice.from_parameters(900, 2, 2, 11, 11, 11)):
        coords = np.random.default_rng(1).random((6, 3))
        assert classify(Structure(lattice, ["Ti"] * 2 + ["O"] * 4, coords)) is None


def test_of_real_crystals_few_are_of_a_class_and_none_of_another_group():
    groups = {prototype.space_group for prototype in PROTOTYPES.values()}
    kept = [row for i, row in enumerate(published()) if i % 20 == 0 or number_of(row["text"]) in groups]
    found = []
    for row in kept:
        member = classify(Structure.from_str(row["cif"], fmt="cif"))
        if member is not None:
            name = member.name
            assert number_of(row["text"]) == PROTOTYPES[name].space_group
            found.append(name)
    assert 0 < len(found) < len(kept) / 2


def number_of(text: str) -> int:
    return parser.parse(text).space_group_number
