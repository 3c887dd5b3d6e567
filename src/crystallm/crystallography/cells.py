"""Cell parameters, lattice vectors and volumes.

Parameters are a, b, c (Å), alpha, beta, gamma (degrees). `cif.writer` has vectors of its own: their last bit
is part of the published texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import cos, inf, radians, sin, sqrt

import numpy as np

from crystallm.crystallography.space_groups import Floats


def lattice(parameters: Sequence[float]) -> Floats:
    """Return the vectors [3, 3] (rows, Å) of a cell; NaN for one without volume."""
    a, b, c = parameters[:3]
    cos_a, cos_b, cos_g = (math.cos(math.radians(angle)) for angle in parameters[3:])
    sin_g = math.sqrt(1 - cos_g**2)
    x, y = cos_b, (cos_a - cos_b * cos_g) / sin_g
    square = 1 - x * x - y * y
    z = math.sqrt(square) if square >= 0 else math.nan
    return np.array([[a, 0.0, 0.0], [b * cos_g, b * sin_g, 0.0], [c * x, c * y, c * z]])


def pymatgen_vectors(parameters: Sequence[float]) -> Floats | None:
    """Return the vectors [3, 3] (rows, Å) of `pymatgen.core.Lattice`; None for a cell it rejects."""
    from pymatgen.core import Lattice

    if not all(0 < x < inf for x in parameters):
        return None
    size = volume(parameters)
    if size < 1e-6 or min_spacing(parameters) < 0.02:  # pymatgen's limit is 0.01 Å
        return None
    matrix: Floats = Lattice.from_parameters(*parameters).matrix
    return matrix


def min_spacing(cell: Sequence[float]) -> float:
    """Return the least distance of neighbouring lattice planes (100), (010) or (001), Å."""
    a, b, c = cell[:3]
    p, q, r = (sin(radians(angle)) for angle in cell[3:])
    face = max(b * c * p, a * c * q, a * b * r)
    return volume(cell) / face if face > 0 else 0.0


def right_handed(vectors: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Return a crystal on a right-handed basis: (-a, -b, -c) and -f for a left-handed one with fractions f.

    Lengths and angles describe a right-handed basis, so that fractions on a left-handed one would be those of
    the mirror image.

    Args:
        vectors: [3, 3] rows, Å.
        points: [n_atoms, 3] fractions.
    """
    return (-vectors, -points) if np.linalg.det(vectors) < 0 else (vectors, points)


def volume(cell: Sequence[float]) -> float:
    """Return the volume of a cell, Å^3; 0 if no cell has its angles."""
    a, b, c = cell[:3]
    p, q, r = (cos(radians(angle)) for angle in cell[3:])
    return a * b * c * sqrt(max(0.0, 1 + 2 * p * q * r - p * p - q * q - r * r))


def squared_volume_factor(angles: Sequence[float]) -> float:
    """Return (V / abc)^2 of a cell with these angles (degrees); not positive if no cell has them.

    As in `volume`, but summed in another order: decoded structures depend on its last bit.
    """
    x, y, z = (cos(radians(angle)) for angle in angles)
    return 1 - (x * x + y * y + z * z) + 2 * x * y * z


def impossible(cell: Sequence[float]) -> bool:
    """Return whether no cell has these lengths and angles, or next to no volume."""
    lengths, angles = cell[:3], cell[3:]
    possible = all(0 < x < inf for x in lengths) and all(0 < x < 180 for x in angles)
    return not possible or not volume(cell) > 1e-9 * lengths[0] * lengths[1] * lengths[2]
