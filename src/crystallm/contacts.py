"""Whether atoms stand closer than crystals allow.

Knows points, cells and radii; refuses to know tokens and structures. Needs numpy alone.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from crystallm import elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.spacegroups import Floats

SHARE = 0.68
"""Smallest distance of two atoms as a share of the sum of their atomic radii. Of 1,500 crystals of the
training corpus 0.4 % have a shorter one (0.3 % one below 0.65); the median of the shortest is 0.94."""

VOLUMES = (4.0, 300.0)
"""Least and largest volume per atom, Å^3. The least of the same crystals is 4.4; 0.1 % have more than 275."""

_SHIFTS = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))  # (27, 3); the 14th is no shift


@cache
def radius(symbol: str) -> float:
    """Atomic radius (Slater's, as the texts print it), Å; 0 where none is known."""
    return elements.get(symbol).atomic_radius or 0.0


def lattice(parameters: Sequence[float]) -> Floats:
    """Vectors [3, 3] (rows, Å) of a cell given by a, b, c (Å), alpha, beta, gamma (degrees).

    A cell without volume gives vectors that are no numbers.
    """
    a, b, c = parameters[:3]
    cos_a, cos_b, cos_g = np.cos(np.radians(parameters[3:]))
    sin_g = np.sqrt(1 - cos_g**2)
    x, y = cos_b, (cos_a - cos_b * cos_g) / sin_g
    with np.errstate(invalid="ignore"):
        z = np.sqrt(1 - x * x - y * y)
    return np.array([[a, 0.0, 0.0], [b * cos_g, b * sin_g, 0.0], [c * x, c * y, c * z]])


def too_close(vectors: Floats, point: Floats, symbol: str, others: Floats, radii: Floats) -> bool:
    """Whether an atom stands too close to any of others, or to its own images in the next cells.

    Args:
        vectors: [3, 3] of the cell, Å.
        point: [3] of the atom, fractions.
        symbol: its element.
        others: [n, 3] fractions, all images of whole orbits: so one atom of the new orbit speaks for all.
        radii: [n] of the others, Å.
    """
    own = radius(symbol)
    images = np.delete(_SHIFTS, 13, axis=0) @ vectors
    if (images**2).sum(axis=1).min() < (SHARE * 2 * own) ** 2:
        return True
    if not len(others):
        return False
    off = others - point
    off = (off - np.rint(off))[:, None, :] + _SHIFTS[None]  # (n, 27, 3)
    squares = ((off @ vectors) ** 2).sum(axis=2).min(axis=1)  # (n,)
    return bool((squares < (SHARE * (own + radii)) ** 2).any())
