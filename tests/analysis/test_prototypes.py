"""Structure classes of crystals: detected in any cell, rejected for other structures."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from class_examples import examples, make
from crystallm.analysis.prototypes import PROTOTYPES, classify
from crystallm.cif import parser
from real_crystals import published, told_otherwise

SKEW = [[1, 1, 0], [0, 1, 0], [0, 1, 1]]


DOUBLE = [[1, 0, 0], [0, 2, 0], [0, 0, 1]]


LEFT = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


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
