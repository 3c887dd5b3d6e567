"""Neighbours are those that CrystalNN finds, in real crystals and in heaps of atoms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Element, Lattice, Structure
from pymatgen.core.local_env import CrystalNN

from crystallm.crystallography import elements
from crystallm.geometry import neighbors
from crystallm.geometry.neighbors import NeighborFinder
from real_crystals import structures


def surroundings(structure: Structure) -> NeighborFinder:
    symbols = [site.specie.symbol for site in structure]
    return NeighborFinder(structure.lattice.matrix, structure.frac_coords, symbols)


def as_pymatgen(structure: Structure, i: int) -> list[int]:
    return sorted(found["site_index"] for found in CrystalNN().get_nn_info(structure, i))


@pytest.mark.parametrize("start", range(8))
def test_neighbours_are_those_of_crystalnn(start):
    n_sites = 0
    for structure in structures()[start::64]:
        if len(structure) > 40:
            continue
        ours = surroundings(structure)
        for i in range(len(structure)):
            found, lengths = ours.of(i)
            assert sorted(found.tolist()) == as_pymatgen(structure, i)
            shortest = structure.lattice.get_all_distances(
                structure.frac_coords[i], structure.frac_coords[found]
            )[0]
            apart = found != i  # an atom's distance to itself is that to its own nearest image here
            np.testing.assert_allclose(lengths[apart], shortest[apart], atol=1e-9)
            n_sites += 1
    assert n_sites > 20


def test_neighbours_in_highly_symmetric_cells_are_those_of_crystalnn(textbook_structures):
    for structure in textbook_structures.values():
        for i in range(len(structure)):
            assert sorted(surroundings(structure).of(i)[0].tolist()) == as_pymatgen(structure, i)


@pytest.mark.filterwarnings("ignore:No Pauling")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_atoms=st.integers(1, 8),
    volume=st.floats(6, 60),
    flat=st.floats(0.5, 2.5),
)
def test_neighbours_in_heaps_of_atoms_are_those_of_crystalnn(seed, n_atoms, volume, flat):
    """Skewed cells, atoms anywhere: what a network without rules writes."""
    rng = np.random.default_rng(seed)
    size = (volume * n_atoms) ** (1 / 3)
    lattice = Lattice.from_parameters(size * flat, size, size / flat, *rng.uniform(55, 120, size=3))
    if not np.isfinite(lattice.matrix).all() or lattice.volume < 2 * n_atoms:
        return
    kinds = rng.choice(["H", "O", "Si", "Fe", "Cs", "Ne"], size=n_atoms).tolist()
    structure = Structure(lattice, kinds, rng.random((n_atoms, 3)))
    if n_atoms > 1 and (structure.distance_matrix + 9 * np.eye(n_atoms)).min() < 0.1:
        return
    for i in range(n_atoms):
        assert sorted(surroundings(structure).of(i)[0].tolist()) == as_pymatgen(structure, i)


def test_more_atoms_are_taken_until_the_cell_is_known(monkeypatch, textbook_structures):
    """With too few atoms at first, the same neighbours come out."""
    rutile = textbook_structures["rutile"]
    usual = [surroundings(rutile).of(i)[0].tolist() for i in range(len(rutile))]
    for first in (4, 7, 15):
        monkeypatch.setattr(neighbors, "FIRST", first)
        again = [surroundings(rutile).of(i)[0].tolist() for i in range(len(rutile))]
        assert list(map(sorted, again)) == list(map(sorted, usual))


def test_a_layer_of_nothing_is_looked_across():
    """Slabs 30 Å apart: the cell of a surface atom is open within 7 Å."""
    slab = Structure(Lattice.tetragonal(3.2, 34), ["Si", "O"], [[0, 0, 0], [0.5, 0.5, 0.05]])
    assert [sorted(surroundings(slab).of(i)[0].tolist()) for i in (0, 1)] == [
        as_pymatgen(slab, i) for i in (0, 1)
    ]


def test_atoms_on_one_point_are_left_to_crystalnn():
    heap = Structure(Lattice.cubic(4), ["Na", "Cl", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
    for i in range(3):
        assert sorted(surroundings(heap).of(i)[0].tolist()) == as_pymatgen(heap, i)


@pytest.mark.filterwarnings("ignore:No Pauling")
def test_electronegativities_are_those_of_crystalnn():
    for symbol in elements.symbols():
        theirs = Element(symbol).X
        assert elements.get(symbol).electronegativity == pytest.approx(theirs, abs=1e-12, nan_ok=True)
