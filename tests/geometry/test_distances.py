"""Distances and volumes of known crystals."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm.crystallography import elements
from crystallm.geometry import distances
from real_crystals import structures


def faults(structure: Structure) -> list[str]:
    symbols = [site.specie.symbol for site in structure]
    return distances.faults(structure.lattice.matrix, structure.frac_coords, symbols)


def test_the_bounds_are_those_of_chemistry():
    known = distances.known()
    for (one, other), length in known.least.items():
        assert known.least[other, one] == length
        assert length > 0.6
    assert known.farthest.keys() == set(elements.symbols())
    for pair, longest in {("O", "H"): 0.97, ("N", "H"): 1.02, ("S", "O"): 1.45, ("C", "O"): 1.25}.items():
        assert 0.6 * longest < known.least[pair] <= longest  # bonds of water, ammonium, sulfate, carbonate
    assert known.least["Na", "Cl"] > 2.1
    assert known.least["Na", "Na"] > 2.3


def test_textbook_crystals_have_no_faults(textbook_structures):
    for name, structure in textbook_structures.items():
        assert faults(structure) == [], name


def test_published_crystals_rarely_have_faults():
    found = [bool(faults(structure)) for structure in structures()]
    assert np.mean(found) <= 0.02


@pytest.mark.parametrize("scale", [(1, 0, 0), (1, 1, 0), (2, 1, 3)])
def test_pairs_are_those_of_a_supercell_whatever_the_cell(textbook_structures, scale):
    """Distances per atom do not depend on the cell: skewed and doubled ones have the same."""
    rutile = textbook_structures["rutile"]
    skewed = rutile.copy()
    skewed.make_supercell([[1, 0, 0], [scale[1], 1, 0], [0, scale[2], scale[0]]])

    def told(structure):
        _, _, lengths = distances.pairs_within(structure.lattice.matrix, structure.frac_coords, 4.0)
        return np.sort(lengths)

    assert told(skewed) == pytest.approx(np.repeat(told(rutile), scale[0]), abs=1e-6)


def test_each_fault_says_what_known_crystals_have(textbook_structures):
    salt = textbook_structures["rocksalt"]
    wide = Structure(Lattice.cubic(13), salt.species, salt.frac_coords)
    assert [reason.partition(":")[0] for reason in faults(wide)] == ["volume", "neighbors", "neighbors"]
    assert "274.6 Å^3 per atom, known crystals of such atoms have" in faults(wide)[0]
    assert "Cl has none within" in faults(wide)[1]
    # Two hydrogen atoms 0.53 Å apart beside a sodium atom, and an oxygen atom at its own image.
    close = Structure(Lattice.cubic(4), ["Na", "H", "H"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.6325]])
    assert any(
        reason.startswith("distance: H and H 0.53 Å apart, in known crystals") for reason in faults(close)
    )
    thin = Structure(Lattice.orthorhombic(0.9, 5, 5), ["O"], [[0, 0, 0]])
    assert any(reason.startswith("distance: O and O 0.90 Å apart") for reason in faults(thin))


def test_the_shortest_distance_counts_images():
    assert distances.shortest(np.eye(3) * 0.3, np.zeros((1, 3))) == pytest.approx(0.3)
    assert distances.shortest(np.eye(3) * 3, np.array([[0, 0, 0], [0.1, 0, 0]])) == pytest.approx(0.3)
    assert distances.shortest(np.eye(3) * 3, np.zeros((1, 3))) == float("inf")
