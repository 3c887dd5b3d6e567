"""The variables that a space group leaves free."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import energies
from crystallm.errors import CrystallmError
from crystallm.geometry import free_coordinates
from crystallm.geometry.symmetry_search import find_symmetry

SYMPREC = 0.01
GROUPS = [
    1,
    2,
    5,
    9,
    14,
    19,
    31,
    62,
    63,
    82,
    96,
    122,
    136,
    148,
    152,
    166,
    167,
    176,
    186,
    194,
    198,
    205,
    216,
    221,
    227,
]
CELLS = [
    (2, (5.0, 6.1, 7.3, 82.0, 95.0, 103.0)),
    (15, (5.0, 6.1, 7.3, 90.0, 103.0, 90.0)),
    (74, (5.0, 6.1, 7.3, 90.0, 90.0, 90.0)),
    (142, (5.0, 5.0, 7.3, 90.0, 90.0, 90.0)),
    (194, (5.0, 5.0, 7.3, 90.0, 90.0, 120.0)),
    (230, (6.0, 6.0, 6.0, 90.0, 90.0, 90.0)),
]


def crystal(group: int) -> Structure:
    """An atom at the origin, one on a diagonal and, where few images make it cheap, one anywhere."""
    rng = np.random.default_rng(group)
    cell = next(cell for last, cell in CELLS if group <= last)
    x = rng.uniform(0.1, 0.4)
    sites = [("Cu", [0, 0, 0]), ("O", [x, x, x]), ("F", [0.5, 0.5, rng.uniform(0.1, 0.4)])]
    if 143 <= group <= 194:
        sites.append(("S", [1 / 3, 2 / 3, rng.uniform(0.3, 0.4)]))
    if group < 75:
        sites.append(("N", list(rng.uniform(0.05, 0.45, 3))))
    return Structure.from_spacegroup(group, Lattice.from_parameters(*cell), *zip(*sites, strict=True))


def symmetric(structure: Structure) -> free_coordinates.FreeCoordinates:
    kinds = [site.specie.Z for site in structure]
    return free_coordinates.symmetric(structure.lattice.matrix, structure.frac_coords, kinds, SYMPREC)


def dataset(structure: Structure, lattice=None, points=None, symprec=1e-5):
    lattice = structure.lattice.matrix if lattice is None else lattice
    points = structure.frac_coords if points is None else points
    return find_symmetry(lattice, points, [site.specie.Z for site in structure], symprec, -1.0)


def site_symmetries(found) -> list[str]:
    """Of each atom, whichever of equivalent origins and axes spglib takes."""
    return ["".join(sorted(symbol.replace(".", ""))) for symbol in found.site_symmetry_symbols]


@pytest.mark.parametrize("group", GROUPS)
def test_any_values_of_the_variables_keep_the_group_and_the_orbits(group):
    structure = crystal(group)
    before = dataset(structure)
    assert before.number >= group  # a few simple sites can have more symmetry
    rng = np.random.default_rng(group)
    crooked = structure.copy()  # within the tolerance, but not symmetric
    crooked.perturb(0.002)
    for given in (structure, crooked):
        free = symmetric(given)
        after = dataset(given, *free.given_cell(rng.normal(0, 0.05, free.n_variables)))
        assert after.number == before.number
        assert site_symmetries(after) == site_symmetries(before)
        assert list(after.equivalent_atoms) == list(before.equivalent_atoms)
        lattice, points = free.given_cell(np.zeros(free.n_variables))
        apart = points - given.frac_coords
        assert np.linalg.norm(apart @ lattice, axis=1).max() < SYMPREC
        assert lattice == pytest.approx(given.lattice.matrix, abs=SYMPREC)


@pytest.mark.parametrize("group", GROUPS)
def test_gradients_agree_with_differences_of_energies(group):
    structure, model = crystal(group), energies.Morse()
    free = symmetric(structure)
    rng = np.random.default_rng(group)
    start, direction = rng.normal(0, 0.03, (2, free.n_variables))

    def cell(variables):
        lattice, points = free.primitive_cell(variables)
        return Structure(lattice, [structure[atom].specie for atom in free.atoms], points)

    (answer,) = model.predict([cell(start)], forces=True)
    found = free.gradient(start, answer.forces, answer.stress) @ direction
    up, down = model.predict([cell(start + 1e-4 * direction), cell(start - 1e-4 * direction)])
    expected = len(free.points) * (up.energy - down.energy) / 2e-4
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    # Forces of a symmetric crystal have no other part.
    forces, stress = free.project(answer.forces, answer.stress)
    assert forces == pytest.approx(answer.forces, abs=1e-8)
    assert stress == pytest.approx(answer.stress, abs=1e-8)


def test_perovskite_has_one_variable_and_rutile_three(textbook_structures):
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    perovskite = Structure.from_spacegroup("Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], sites)
    assert symmetric(perovskite).n_variables == 1
    assert symmetric(perovskite * (2, 1, 1)).n_variables == 1
    assert symmetric(textbook_structures["rutile"]).n_variables == 3
    free = free_coordinates.unconstrained(perovskite.lattice.matrix, perovskite.frac_coords)
    assert free.n_variables == 6 + 15


def test_the_primitive_cell_moves_as_the_given_one(textbook_structures):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    rutile = textbook_structures["rutile"]
    double = rutile * [[1, 1, 0], [-1, 1, 0], [0, 0, 1]]
    for structure, n in ((salt, 2), (double, 6), (rutile * (1, 2, 1), 6)):
        free = symmetric(structure)
        assert len(free.points) == n
        variables = np.random.default_rng(0).normal(0, 0.05, free.n_variables)
        lattice, points = free.given_cell(variables)
        large = Structure(lattice, structure.species, points)
        lattice, points = free.primitive_cell(variables)
        small = Structure(lattice, [structure[atom].specie for atom in free.atoms], points)
        assert large.volume / len(large) == pytest.approx(small.volume / len(small))
        found = energies.Morse().predict([large, small])
        assert found[0].energy == pytest.approx(found[1].energy)


def test_atoms_on_top_of_each_other_have_no_symmetry():
    pair = Structure(Lattice.cubic(3), ["Cu", "Cu"], [[0, 0, 0], [0, 0, 0]])
    with pytest.raises(CrystallmError, match="its symmetry cannot be kept: spglib finds none"):
        symmetric(pair)
