"""Families of reflections: absences, multiplicities and spacings."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.crystallography import cells, space_groups
from crystallm.diffraction.reflections import families, quadratic, reciprocal_metric

TRICLINIC = np.array([4.1, 5.2, 6.3, 85.0, 95.0, 101.0])


def test_the_reciprocal_metric_is_that_of_the_lattice():
    inverse = np.linalg.inv(cells.lattice(TRICLINIC.tolist()))
    metric = inverse.T @ inverse
    i, j = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
    assert reciprocal_metric(TRICLINIC) == pytest.approx(metric[i, j])
    assert np.isnan(reciprocal_metric(np.array([4, 4, 4, 60, 60, 170.0]))).all()


def test_a_diamond_lattice_has_its_lines():
    indices, members = families(space_groups.get(227), np.array([5.43] * 3 + [90.0] * 3), 1.2)
    lines = [tuple(sorted(map(abs, row))) for row in indices.tolist()]
    assert lines == [(1, 1, 1), (0, 2, 2), (1, 1, 3), (2, 2, 2), (0, 0, 4), (1, 3, 3)]
    assert members.tolist() == [8, 12, 24, 8, 6, 24]


@pytest.mark.parametrize(
    ("number", "cell"), [(2, TRICLINIC), (152, [4.9, 4.9, 5.4, 90, 90, 120]), (62, [5, 6, 7, 90, 90, 90])]
)
def test_families_hold_every_reflection_that_is_not_extinct(number, cell):
    cell = np.array(cell, dtype=float)
    indices, members = families(space_groups.get(number), cell, 1.5)
    squares = quadratic(indices) @ reciprocal_metric(cell)
    assert (np.diff(squares) >= -1e-12).all()
    grid = np.mgrid[-6:7, -6:7, -6:7].reshape(3, -1).T
    all_squares = quadratic(grid) @ reciprocal_metric(cell)
    n_inside = int(((all_squares <= 1 / 1.5**2) & grid.any(axis=1)).sum())
    assert members.sum() <= n_inside
    if number == 2:
        assert members.sum() == n_inside
