"""Cell parameters and lattice vectors."""

from __future__ import annotations

import math
from math import cos, inf, radians, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Floats


def lattice(parameters: Sequence[float]) -> Floats:
    """Vectors [3, 3] (rows, Å) of a cell given by a, b, c (Å), alpha, beta, gamma (degrees).

    A cell without volume gives vectors that are no numbers.
    """
    a, b, c = parameters[:3]
    cos_a, cos_b, cos_g = (math.cos(math.radians(angle)) for angle in parameters[3:])
    sin_g = math.sqrt(1 - cos_g**2)
    x, y = cos_b, (cos_a - cos_b * cos_g) / sin_g
    square = 1 - x * x - y * y
    z = math.sqrt(square) if square >= 0 else math.nan
    return np.array([[a, 0.0, 0.0], [b * cos_g, b * sin_g, 0.0], [c * x, c * y, c * z]])


def volume(cell: Sequence[float]) -> float:
    """Volume of a cell, Å^3; 0 where three such angles make none."""
    a, b, c = cell[:3]
    p, q, r = (cos(radians(angle)) for angle in cell[3:])
    return a * b * c * sqrt(max(0.0, 1 + 2 * p * q * r - p * p - q * q - r * r))


def impossible(cell: Sequence[float]) -> bool:
    """Whether no cell has these lengths and angles, or next to no volume."""
    lengths, angles = cell[:3], cell[3:]
    possible = all(0 < x < inf for x in lengths) and all(0 < x < 180 for x in angles)
    return not possible or not volume(cell) > 1e-9 * lengths[0] * lengths[1] * lengths[2]


def cell_vectors(parameters: Sequence[float]) -> Floats | None:
    """Vectors of a cell, Å; None for one so flat that pymatgen would refuse it, or none at all."""
    import numpy as np
    from pymatgen.core import Lattice

    if not all(x > 0 for x in parameters):
        return None
    matrix: Floats = Lattice.from_parameters(*parameters).matrix
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        return None
    spacings = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    return matrix if spacings.min() > 0.02 else None  # pymatgen's limit is 0.01 Å
