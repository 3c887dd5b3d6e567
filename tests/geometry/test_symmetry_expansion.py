"""All atoms of a cell from its rows: exactly those that pymatgen's parser makes, or none."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.cif import block as cif_block
from crystallm.cif import printed_crystal, writer
from crystallm.geometry import symmetry_expansion
from real_crystals import published, random_crystal

COVERED = 0.9  # of texts; the others are left to pymatgen, since rounding decides


def both_ways(text: str) -> tuple[printed_crystal.CrystalArrays | None, printed_crystal.CrystalArrays]:
    """The crystal of a text at once, None where that is refused; and pymatgen's."""
    block = cif_block.read(text)
    parameters = {name: cif_block.number(block.tags[name]) for name in cif_block.LENGTHS + cif_block.ANGLES}
    sites = [
        (cif_block.row_symbol(row), [cif_block.number(row[name]) for name in cif_block.POSITION], 1.0)
        for row in block.atoms()
    ]
    operators = printed_crystal._operators(block)
    at_once = printed_crystal.from_arrays(list(parameters.values()), operators, sites)
    return at_once, printed_crystal.from_pymatgen(parameters, operators, sites)


def assert_equal(one: printed_crystal.CrystalArrays, other: printed_crystal.CrystalArrays) -> None:
    assert one.symbols == other.symbols
    assert one.kinds == other.kinds
    np.testing.assert_allclose(one.coords, other.coords, atol=1e-12)
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-12)
    np.testing.assert_allclose(one.operators, other.operators, atol=1e-12)


@pytest.mark.parametrize("start", range(4))
def test_published_texts_have_the_atoms_that_pymatgen_finds(start):
    pairs = [both_ways(row["text"]) for row in published()[start::16]]
    for at_once, asked in pairs:
        if at_once is not None:
            assert_equal(at_once, asked)
    assert sum(at_once is not None for at_once, _ in pairs) > COVERED * len(pairs)


def test_crystals_of_all_groups_have_the_atoms_that_pymatgen_finds():
    pairs = [both_ways(writer.to_text(random_crystal(number, 3))) for number in range(1, 231)]
    for at_once, asked in pairs:
        if at_once is not None:
            assert_equal(at_once, asked)
    assert sum(at_once is not None for at_once, _ in pairs) > COVERED * len(pairs)


def operators(*shifts: tuple[float, float, float]) -> np.ndarray:
    """The identity, and mirrors of it with shifts."""
    found = [np.hstack([np.eye(3), np.zeros((3, 1))])]
    found += [np.hstack([-np.eye(3), np.array(shift)[:, None]]) for shift in shifts]
    return np.array(found)


def test_images_that_coincide_are_one_atom():
    found = symmetry_expansion.atoms(["Na"], np.array([[0.5, 0.0, 0.5]]), operators((0, 0, 0)))
    assert found is not None
    assert found[0].shape == (1, 3)


@pytest.mark.parametrize(
    ("symbols", "points"),
    [
        (["Na"], [[0.00005, 0.0, 0.0]]),  # its image is 1e-4 away: rounding decides
        (["Na", "Cl"], [[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]),  # on an image of the other
        (["Na", "He"], [[0.1, 0.2, 0.3], [0.5, 0.5, 0.0]]),  # helium has no electronegativity to sort by
        (["Na", "Po"], [[0.1, 0.2, 0.3], [0.5, 0.5, 0.0]]),  # not in our table
    ],
)
def test_what_is_not_certain_is_left_to_pymatgen(symbols, points):
    assert symmetry_expansion.atoms(symbols, np.array(points), operators((0, 0, 0))) is None


def test_atoms_are_sorted_by_electronegativity():
    points = np.array([[0.1, 0.2, 0.3], [0.4, 0.1, 0.0], [0.2, 0.3, 0.6]])
    found = symmetry_expansion.atoms(["O", "Na", "O"], points, operators())
    assert found is not None
    assert found[1] == ["Na", "O", "O"]
    np.testing.assert_array_equal(found[0], points[[1, 0, 2]])
