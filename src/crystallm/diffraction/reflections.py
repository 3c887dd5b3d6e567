"""Reflections of a crystal: families of equivalent ones, and their spacings.

A family holds all h that a rotation R of the group or -1 makes of one: h' = R^T h. Reflections that the group
extinguishes are left out: those with h = R^T h and h.t not an integer, for an operator (R, t).

    1 / d^2 = h^T G* h, G* the reciprocal metric; linear in (G*_11, G*_22, G*_33, G*_23, G*_13, G*_12)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import Floats, Ints, SpaceGroup

MAX_INDICES = 4_000_000
"""Indices that are looked at, at most; the resolution is lowered for larger cells."""
CODE = 4096
"""Base of the numbers that stand for indices."""


def reciprocal_metric(cells: Floats) -> Floats:
    """Return G* of cells.

    Args:
        cells: [..., 6] a, b, c (Å), alpha, beta, gamma (degrees).

    Returns:
        [..., 6] G*_11, G*_22, G*_33, G*_23, G*_13, G*_12, in 1/Å^2; NaN for a flat cell.
    """
    lengths = cells[..., :3]
    cosines = np.cos(np.radians(cells[..., 3:]))
    x, y, z = (cosines[..., i] for i in range(3))
    factor = 1 - x**2 - y**2 - z**2 + 2 * x * y * z
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(factor > 1e-4, factor, np.nan)
    a, b, c = (lengths[..., i] for i in range(3))
    entries = [
        (1 - x**2) / a**2,
        (1 - y**2) / b**2,
        (1 - z**2) / c**2,
        (y * z - x) / (b * c),
        (x * z - y) / (a * c),
        (x * y - z) / (a * b),
    ]
    return np.stack(entries, axis=-1) / factor[..., None]


def volumes(cells: Floats) -> Floats:
    """Return the volumes (Å^3) of cells [..., 6]; 0 for a flat one."""
    x, y, z = (np.cos(np.radians(cells[..., i])) for i in (3, 4, 5))
    factor = np.maximum(1 - x**2 - y**2 - z**2 + 2 * x * y * z, 0)
    return np.asarray(cells[..., :3].prod(axis=-1) * np.sqrt(factor))


def quadratic(indices: Ints) -> Floats:
    """Return the coefficients [n, 6] of G* in 1/d^2 of reflections [n, 3]."""
    h, k, l = np.asarray(indices, dtype=np.float64).T
    return np.stack([h * h, k * k, l * l, 2 * k * l, 2 * h * l, 2 * h * k], axis=1)


def families(group: SpaceGroup, cell: Floats, d_min: float) -> tuple[Ints, Floats]:
    """Return a representative of each family of reflections of a cell, and the number of its members.

    Args:
        cell: [6] as `SpaceGroup.complete_cell` has it.
        d_min: smallest spacing, Å.

    Returns:
        Indices [n, 3] and multiplicities [n], by falling spacing.
    """
    indices, squares = _half_sphere(cell, d_min)
    rotations = np.unique(group.rotations, axis=0)
    indices, squares = _without_absences(group, indices, squares)
    # [n_rotations, n, 3]: R^T h, and of h and -h the one with the larger code
    images = np.einsum("rji,nj->rni", rotations, indices)
    codes = np.abs((images[..., 0] * CODE + images[..., 1]) * CODE + images[..., 2])
    largest = codes.max(axis=0)
    _, first = np.unique(largest, return_index=True)
    ordered = np.sort(codes[:, first], axis=0)
    members = 2.0 * (1 + (np.diff(ordered, axis=0) != 0).sum(axis=0))
    order = np.argsort(squares[first], kind="stable")
    return indices[first][order], members[order]


def _half_sphere(cell: Floats, d_min: float) -> tuple[Ints, Floats]:
    """Return one of h and -h of all reflections with d >= d_min, and 1/d^2."""
    while True:
        h, k, l = (int(length / d_min) for length in cell[:3])
        if (h + 1) * (2 * k + 1) * (2 * l + 1) <= MAX_INDICES:
            break
        d_min *= 1.1
    grid = np.mgrid[0 : h + 1, -k : k + 1, -l : l + 1].reshape(3, -1).T
    code = (grid[:, 0] * CODE + grid[:, 1]) * CODE + grid[:, 2]
    grid = grid[code > 0]
    squares = quadratic(grid) @ reciprocal_metric(np.asarray(cell))
    kept = squares <= 1 / d_min**2
    return grid[kept], squares[kept]


def _without_absences(group: SpaceGroup, indices: Ints, squares: Floats) -> tuple[Ints, Floats]:
    absent = np.zeros(len(indices), dtype=bool)
    for rotation, translation in zip(group.rotations, group.translations, strict=True):
        shift = indices @ translation
        if not translation.any():
            continue
        fixed = (indices @ rotation == indices).all(axis=1)
        absent |= fixed & (np.abs(shift - np.rint(shift)) > 1e-3)
    return indices[~absent], squares[~absent]
