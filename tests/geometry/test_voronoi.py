"""Voronoi cells have the volume, the angles and the faces that geometry says."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystallm.geometry import voronoi


def sorted_points(points):
    squares = np.einsum("ij,ij->i", points, points)
    order = np.argsort(squares, kind="stable")
    return points[order], squares[order]


def lattice_points(vectors, reach=3):
    shifts = np.array([s for s in product(range(-reach, reach + 1), repeat=3) if any(s)], dtype=float)
    return sorted_points(shifts @ vectors)


def test_the_cell_of_a_cubic_lattice_is_a_cube():
    points, squares = lattice_points(2.0 * np.eye(3))
    angles, areas = voronoi.cell(points, squares, 40, 6.0)
    faces = areas > 1e-9
    assert np.flatnonzero(faces).tolist() == list(range(6))  # the others touch an edge or a corner
    assert areas[:6] == pytest.approx([4.0] * 6)
    assert angles[:6] == pytest.approx([4 * np.pi / 6] * 6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n_first=st.sampled_from((4, 12, 40)))
def test_the_cell_of_a_lattice_has_its_volume_and_all_angles(seed, n_first):
    vectors = 3 * np.eye(3) + np.random.default_rng(seed).uniform(-0.8, 0.8, (3, 3))
    points, squares = lattice_points(vectors)
    within = squares <= 49.0
    angles, areas = voronoi.cell(points[within], squares[within], n_first, 7.0)
    heights = np.sqrt(squares[: len(areas)]) / 2
    assert (areas * heights).sum() / 3 == pytest.approx(abs(np.linalg.det(vectors)))
    assert angles.sum() == pytest.approx(4 * np.pi)


@pytest.mark.parametrize("n_atoms", [0, 1, 3, 8])
def test_the_cell_among_atoms_in_one_plane_is_open(n_atoms):
    turns = np.linspace(0, 2 * np.pi, n_atoms, endpoint=False)
    points = np.stack([np.cos(turns), np.sin(turns), np.zeros(n_atoms)], axis=1)
    assert voronoi.cell(points, np.ones(n_atoms), 40, 7.0) is None
