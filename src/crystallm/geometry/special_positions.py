"""All images of the atoms of a file under its operators, with rounded special positions made exact.

A coordinate of 0.333 stands for 1/3: the images of such an atom lie near each other, and are one atom if the
digits allow it. Atoms of which the digits say that they are apart stay apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.errors import TextError

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import Bools, Floats

THIRDS = 1e-4
"""Relative difference from 1/3 or 2/3 up to which a coordinate is that."""
ROUNDING = 1e-9
NEAR = 0.3
"""Distance below which images that rounding can bring together are one atom, Å."""
SAME = 0.02
"""Distance below which images are one atom whatever their digits, Å."""
EXACT = 1e-4
"""Distance below which an operator leaves an atom in place, Å."""
FEW = 40
"""Points up to which it is faster to compare all pairs than to build a tree."""


@dataclass(frozen=True, slots=True)
class AtomImages:
    """An atom and its images.

    Attributes:
        points: [n, 3] fractions in [0, 1), in the order of the operators.
        moved: how far the atom was moved onto its special position, Å.
    """

    points: Floats
    moved: float


def orbits(points: Floats, units: Floats, operators: Floats, vectors: Floats) -> list[AtomImages]:
    """Return the images of each atom, where rounded coordinates of special positions are made exact.

    An image that is within what rounding allows, and near, is the atom itself: with S the operators of these
    images, the atom is moved to the mean of its images under S, which S then leaves in place.

    Args:
        points: [n_rows, 3] fractions, as printed.
        units: [n_rows, 3] the last digit of each.
        operators: [n_ops, 3, 4] a group, as rotations and translations on fractions.
        vectors: [3, 3] lattice vectors, Å.

    Raises:
        TextError: what rounding allows is not a position of the group.
    """
    points = points.copy()
    for ideal in (1 / 3, 2 / 3):
        points[np.abs(points / ideal - 1) <= THIRDS] = ideal
    if len(operators) == 1:
        wrapped = points - np.floor(points)
        return [AtomImages(wrapped[i : i + 1], 0.0) for i in range(len(wrapped))]
    rotations = operators[:, :, :3]
    images = np.einsum("oij,rj->roi", rotations, points) + operators[None, :, :, 3]  # (n_rows, n_ops, 3)
    apart = images - points[:, None]
    apart -= np.rint(apart)
    distances = np.linalg.norm(apart @ vectors, axis=2)  # Å
    spread = np.einsum("oij,rj->roi", np.abs(rotations - np.eye(3)), units)
    own = ((np.abs(apart) <= spread + ROUNDING).all(axis=2) & (distances < NEAR)) | (distances < SAME)
    found = []
    for row, point in enumerate(points):
        if own[row].sum() == 1:
            found.append(AtomImages(images[row] - np.floor(images[row]), 0.0))
            continue
        moved, stabilizer = _onto_position(point, own[row], operators, vectors)
        shift = moved - point
        found.append(
            AtomImages(_distinct(moved, stabilizer, operators), float(np.linalg.norm(shift @ vectors)))
        )
    return found


def _onto_position(point: Floats, own: Bools, operators: Floats, vectors: Floats) -> tuple[Floats, int]:
    """Return a point that operators leave in place, near the given one, and how many do so.

    Args:
        point: [3] fractions.
        own: [n_ops] the operators that leave it in place up to rounding.
        operators: [n_ops, 3, 4].
        vectors: [3, 3] Å.

    Raises:
        TextError: there is none.
    """
    for _ in range(3):
        apart = operators[:, :, :3] @ point + operators[:, :, 3] - point
        apart -= np.rint(apart)
        point = point + apart[own].mean(axis=0)
        apart = operators[:, :, :3] @ point + operators[:, :, 3] - point
        apart -= np.rint(apart)
        exact = np.linalg.norm(apart @ vectors, axis=1) < EXACT
        if (exact | ~own).all():
            return point, int(exact.sum())
        own = own | exact
    raise TextError("it is between two special positions: its coordinates have too few digits")


def _distinct(point: Floats, stabilizer: int, operators: Floats) -> Floats:
    """Return the images of a point, each once: one in `stabilizer` of them."""
    images = operators[:, :, :3] @ point + operators[:, :, 3]
    images -= np.floor(images)
    n = len(operators) // stabilizer
    for offset in (0.000_123, 0.004_567):  # equal points lie in one box of a grid, but for bad luck
        boxes = np.floor((images + offset) * 997).astype(np.int64) % 997
        _, first = np.unique(boxes @ [1, 1000, 1_000_000], return_index=True)
        if len(first) == n:
            return np.array(images[np.sort(first)])
    apart = images[:, None] - images[None]
    apart -= np.rint(apart)
    first = (np.abs(apart) < 1e-5).all(axis=2).argmax(axis=1)
    return np.array(images[np.unique(first)])


def coincident(points: Floats, vectors: Floats, distance: float) -> list[tuple[int, int]]:
    """Return the pairs of points that are nearer than a distance (Å), or at it.

    Args:
        points: [n, 3] fractions.
        vectors: [3, 3] lattice vectors, Å.
        distance: Å; far below the spacing of lattice planes.
    """
    wrapped = points - np.floor(points)
    pairs = _all_pairs(len(points)) if len(points) <= FEW else _likely_pairs(wrapped, vectors, distance)
    apart = wrapped[pairs[:, 0]] - wrapped[pairs[:, 1]]
    apart -= np.rint(apart)
    near = np.linalg.norm(apart @ vectors, axis=1) <= distance
    return [(int(i), int(j)) for i, j in pairs[near]]


@lru_cache(maxsize=FEW)
def _all_pairs(n: int) -> Any:
    return np.transpose(np.triu_indices(n, 1))


def _likely_pairs(wrapped: Floats, vectors: Floats, distance: float) -> Any:
    """Return the pairs of points [n, 3] in [0, 1) whose fractions are as near as those at a distance."""
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    spacing = 1 / np.linalg.norm(np.linalg.inv(vectors), axis=0).max()  # Å, of lattice planes
    wrapped = np.where(wrapped >= 1, 0.0, wrapped)
    return cKDTree(wrapped, boxsize=1.0).query_pairs(
        min(distance / spacing, 0.49), p=np.inf, output_type="ndarray"
    )
