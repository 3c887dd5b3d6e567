"""What the structure matcher may be given."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm.benchmarks import csp


@pytest.fixture(scope="module")
def rock_salt() -> Structure:
    """NaCl, Fm-3m, a = 5.64 Å (Wyckoff, Crystal Structures)."""
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])


@pytest.mark.parametrize(
    "cell",
    [(0.6, 0.6, 1000, 90, 90, 90), (1000, 1000, 0.5, 90, 90, 90), (900, 2, 2, 11, 11, 11)],
    ids=["needle", "plate", "splinter"],
)
def test_a_cell_far_from_the_truths_shape_is_told_apart_soon(
    rock_salt: Structure, cell: tuple[float, ...]
) -> None:
    coords = np.random.default_rng(1).random((8, 3))
    sample = Structure(Lattice.from_parameters(*cell), ["Na"] * 4 + ["Cl"] * 4, coords)
    start = time.process_time()
    assert csp.compare(rock_salt, sample)[0] is None
    assert time.process_time() - start < 5
