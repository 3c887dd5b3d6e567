"""Symmetry of atoms in a cell, found by spglib."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.geometry.symmetry_search import find_symmetry

CUBE = 4.0 * np.eye(3)


@pytest.mark.parametrize(
    ("positions", "kinds", "group"),
    [
        ([[0, 0, 0]], [1], 221),
        ([[0, 0, 0], [0.5, 0.5, 0.5]], [1, 1], 229),
        ([[0, 0, 0], [0.5, 0.5, 0.5]], [1, 2], 221),
    ],
    ids=["simple cubic", "body-centred", "caesium chloride"],
)
def test_textbook_groups(positions, kinds, group):
    assert find_symmetry(CUBE, positions, kinds).number == group


def test_the_tolerance_is_a_distance():
    positions = [[0, 0, 0], [0.5, 0.5, 0.5 + 0.01]]  # 0.04 Å
    assert find_symmetry(CUBE, positions, [1, 1], 0.1).number == 229
    assert find_symmetry(CUBE, positions, [1, 1], 0.01).number != 229


@pytest.mark.parametrize("positions", [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, np.nan]]])
def test_impossible_positions_have_no_symmetry(positions):
    assert find_symmetry(CUBE, positions, [1, 1]) is None
