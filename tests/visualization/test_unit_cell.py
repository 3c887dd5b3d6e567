from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread
from pymatgen.core import Lattice, Structure

from crystallm.crystallography import elements
from crystallm.visualization import unit_cell


@pytest.fixture
def rutile() -> Structure:
    # TiO2, Howard, Sabine and Dickson, Acta Cryst. B 47, 462 (1991).
    lattice = Lattice.tetragonal(4.5937, 2.9587)
    return Structure.from_spacegroup("P4_2/mnm", lattice, ["Ti", "O"], [[0, 0, 0], [0.3048, 0.3048, 0]])


def pixels(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png), format="png")[..., :3]


def test_every_element_with_a_token_has_a_colour():
    colours = {symbol: unit_cell.colour(symbol) for symbol in elements.symbols()}
    assert all(0 <= channel <= 1 for colour in colours.values() for channel in colour)
    assert colours["O"] == pytest.approx((1, 0.051, 0.051), abs=1e-3)


def test_a_unit_cell_shows_the_colours_of_its_atoms(rutile):
    image = pixels(unit_cell.unit_cell(rutile, title="TiO2", dpi=60))
    assert image.shape == (360, 360, 3)
    for symbol in ("Ti", "O"):
        distance = np.abs(image - np.array(unit_cell.colour(symbol))).max(axis=-1)
        assert (distance < 0.02).sum() > 20


def test_the_same_crystal_gives_the_same_bytes(rutile):
    assert unit_cell.unit_cell(rutile, dpi=40) == unit_cell.unit_cell(rutile, dpi=40)


def test_atoms_on_faces_stand_on_the_opposite_faces_too(rutile):
    symbols, _ = unit_cell.drawn_atoms(rutile)
    # Ti: 8 corners and the middle. O (x, x, 0), (-x, -x, 0) on two faces; the other two inside.
    assert (symbols.count("Ti"), symbols.count("O")) == (9, 6)


def test_bonds_join_unlike_neighbours(rutile):
    symbols, points = unit_cell.drawn_atoms(rutile)
    pairs = unit_cell.drawn_bonds(rutile, symbols, points)
    assert pairs
    assert all({symbols[i], symbols[j]} == {"Ti", "O"} for i, j in pairs)
    middle = int(np.linalg.norm(points - [4.5937 / 2, 4.5937 / 2, 2.9587 / 2], axis=1).argmin())
    assert sum(middle in pair for pair in pairs) == 6  # TiO6


def test_each_kind_of_atom_has_its_own_neighbours(textbook_structures):
    perovskite = textbook_structures["perovskite"]
    symbols, points = unit_cell.drawn_atoms(perovskite)
    pairs = unit_cell.drawn_bonds(perovskite, symbols, points)
    strontium = symbols.index("Sr")
    assert sum(strontium in pair for pair in pairs) == 12  # at 2.76 Å, where Ti - O is 1.95
    assert {frozenset((symbols[i], symbols[j])) for i, j in pairs} == {
        frozenset(("Sr", "O")),
        frozenset(("Ti", "O")),
    }


@pytest.mark.parametrize(("a", "bonds"), [(4.2, True), (6.4, False)])
def test_atoms_that_are_far_apart_have_no_bond(a, bonds):
    # MgO's structure, and the same of Ti and O at 3.2 Å, where Ti - O is 1.95.
    metal = "Mg" if bonds else "Ti"
    rocksalt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [metal, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    symbols, points = unit_cell.drawn_atoms(rocksalt)
    assert bool(unit_cell.drawn_bonds(rocksalt, symbols, points)) == bonds


def test_a_cell_too_large_for_a_picture_is_refused():
    row = Structure(Lattice.orthorhombic(3000, 3, 3), ["C"] * 600, [[i / 600, 0, 0] for i in range(600)])
    with pytest.raises(ValueError, match="600 atoms is too large"):
        unit_cell.unit_cell(row)
