"""Cell parameters and lattice vectors."""

from __future__ import annotations

import math
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
