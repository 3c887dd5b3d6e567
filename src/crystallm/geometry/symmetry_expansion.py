"""All atoms of a cell from the rows and operators of a CIF, as pymatgen's CifParser expands them.

Every operator acts on every row; an image within 1e-4 in all fractional coordinates of an earlier one is the
same atom. Coordinates within 1e-4, relatively, of 1/3 or 2/3 are set to these. Atoms are sorted by rising
electronegativity, those of an element by rows and operators, as in `Structure.get_sorted_structure`.

Texts are rounded to 1e-4, so images often lie just that far apart, and rounding of a sum decides whether they
are one atom. Such rows, shared sites and disordered sites are left to CifParser: the result is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crystallm.crystallography import elements
from crystallm.crystallography.space_groups import Floats
from crystallm.errors import InputError

TOLERANCE = 1e-4
"""Difference in fractional coordinates below which two images are one atom."""
ROUNDING = 1e-9
"""Distance from the tolerance within which rounding decides."""
MAX_PAIRS = 4_000_000
"""Most pairs of images that are compared."""


def atoms(symbols: Sequence[str], points: Floats, operators: Floats) -> tuple[Floats, list[str]] | None:
    """Return all atoms of the cell.

    Args:
        points: [n_rows, 3] fractions.
        operators: [n_ops, 3, 4] rotations and translations on fractions.

    Returns:
        Fractions [n_atoms, 3] in [0, 1) and the element of each atom; None where only CifParser decides.
    """
    n_rows, n_images = len(symbols), len(symbols) * len(operators)
    if n_images * max(n_rows, n_images) > MAX_PAIRS:
        return None
    try:
        negativities = [elements.get(symbol).electronegativity for symbol in symbols]
    except InputError:
        return None
    if any(math.isnan(x) for x in negativities):  # of He, Ne, Ar
        return None
    points = points.copy()
    for ideal in (1 / 3, 2 / 3):
        points[np.abs(points / ideal - 1) <= TOLERANCE] = ideal
    images = np.einsum("oij,rj->roi", operators[:, :, :3], points) + operators[None, :, :, 3]
    # A row on an image of one before it shares its site.
    shared, doubt = _near(images.reshape(-1, 3), points)
    if doubt or np.tril(shared.reshape(n_rows, -1, n_rows).any(axis=1), -1).any():
        return None
    images -= np.floor(images)
    coords: list[Floats] = []
    elements_of_atoms: list[str] = []
    order = sorted(range(n_rows), key=lambda row: (negativities[row], symbols[row]))
    for symbol in dict.fromkeys(symbols[row] for row in order):
        rows = [row for row in order if symbols[row] == symbol]
        own = images[rows].reshape(-1, 3)
        near, doubt = _near(own, own)
        first = near.argmax(axis=1)  # the first image that is the same atom
        if doubt or (near[first] != near).any():
            return None
        kept = own[first == np.arange(len(own))]
        coords.append(kept)
        elements_of_atoms += [symbol] * len(kept)
    return np.vstack(coords), elements_of_atoms


def _near(points: Floats, others: Floats) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.bool_]], bool]:
    """Return which points [n, 3] and [m, 3] are one atom, [n, m], and whether rounding decides for a pair."""
    near = np.ones((len(points), len(others)), dtype=np.bool_)
    doubt = np.zeros_like(near)
    for axis in range(3):
        off = points[:, None, axis] - others[None, :, axis]
        off -= np.rint(off)
        np.abs(off, out=off)
        near &= off < TOLERANCE + ROUNDING
        doubt |= off > TOLERANCE - ROUNDING
    doubt &= near
    return near & ~doubt, bool(doubt.any())
