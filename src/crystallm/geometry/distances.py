"""Distances and volumes of known crystals: how close two elements come, how far an atom is from the next one.

`scripts/make_distances.py` counts them in the training split of the corpus:

- d(a, b): of the n shortest distances between atoms of a and b, one for each crystal with such a pair within
  5.5 Å (images of an atom too), the quantile CLOSE, times 1 - 1 / sqrt(n); none where n < FEW.
- g(a, b) to h(a, b), in every third crystal: from the longest bond of reasonable length (see `bonds`), or
  d(a, b) if that is more, to the quantile BETWEEN of the shortest distances beyond it, times 1 - 1 / sqrt(n).
  That is between bond and contact: atoms that stand so mostly count as bonded, at no reasonable length.
- D(a): of the n largest distances from an atom of a to its nearest neighbor of any kind, one for each crystal
  with a, the quantile FAR from above, times 1 + 1 / sqrt(n).
- v, w: of V / V0, the quantiles FAR from below and above, where V0 is the sum of the volumes of the atoms
  (`elements.Element.volume`).

The factors of n leave room for what few crystals have not shown. Chosen on the val split, of which these
bounds refuse 0.9 %; of the test split 0.6 % (distances 0.43 %, neighbors 0.05 %, volume 0.11 %).

A crystal has the distances of known ones if no two atoms are closer than d(a, b), no atom has its nearest
neighbor farther than D(a), and v <= V / V0 <= w.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import product
from math import floor, inf
from typing import Any, NamedTuple

import numpy as np

from crystallm.crystallography import elements
from crystallm.crystallography.space_groups import Floats, Ints
from crystallm.geometry.compiled import Compiled

CLOSE, FAR = 0.001, 0.0002
"""Shares of known crystals beyond the bounds."""
BETWEEN = 0.005
"""Share of the crystals with a pair that have it in its gap between bond and contact."""
FEW = 20
"""Crystals of a pair from which on its shortest distances count."""
SHIFTS: Floats = np.array(list(product((-1.0, 0.0, 1.0), repeat=3)))
"""[27, 3] to a cell and its neighbors, fractions."""
CLOSEST = 0.5
"""Å; closer atoms are on top of each other, whatever they are: the shortest bond, of H2, has 0.74."""


class KnownDistances(NamedTuple):
    """Bounds of known crystals; see the module.

    Attributes:
        least: d, Å, by pair of symbols in both orders; pairs that are too rare are left out.
        gaps: g and h, Å, by pair in both orders; pairs without a gap are left out.
        farthest: D, Å, by symbol.
        volumes: v and w, times the volume of the atoms.
    """

    least: dict[tuple[str, str], float]
    gaps: dict[tuple[str, str], tuple[float, float]]
    farthest: dict[str, float]
    volumes: tuple[float, float]


@cache
def known() -> KnownDistances:
    """Return the bounds that were counted."""
    path = files("crystallm.geometry") / "data" / "distances.json"
    table: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    least, gaps = _by_pair(table["least"]), _by_pair(table["gaps"])
    return KnownDistances(least, gaps, table["farthest"], tuple(table["volumes"]))


def _by_pair(table: dict[str, dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """Return the entries of a table by pair of symbols in both orders."""
    pairs = {(one, other): entry for one, row in table.items() for other, entry in row.items()}
    return pairs | {(other, one): entry for (one, other), entry in pairs.items()}


def nearest_squares(vectors: Floats, coords: Floats, atoms: Sequence[int]) -> Floats:
    """Return squares [n, n_atoms] of the distances of some atoms to the nearest image of each, Å^2.

    Images up to 1.5 cells away along each axis count; an atom's distance to itself is 0.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        atoms: n indices.
    """
    squares = np.empty((len(atoms), len(coords)))
    _find_nearest(vectors, coords, np.array(atoms), SHIFTS @ vectors, squares)
    return squares


def offset(one: Any, other: Any, vectors: Any) -> tuple[float, float, float]:
    """Return the vector (Å) from one point to an image of another, at most half a cell away along each axis.

    Args:
        one: [3] fractions, as `other`.
        vectors: [3, 3] of the cell (rows), Å.
    """
    a, b, c = other[0] - one[0], other[1] - one[1], other[2] - one[2]
    a, b, c = a - floor(a + 0.5), b - floor(b + 0.5), c - floor(c + 0.5)
    x = a * vectors[0][0] + b * vectors[1][0] + c * vectors[2][0]
    y = a * vectors[0][1] + b * vectors[1][1] + c * vectors[2][1]
    z = a * vectors[0][2] + b * vectors[1][2] + c * vectors[2][2]
    return x, y, z


def to_vector(a: float, b: float, c: float, vectors: Any) -> tuple[float, float, float]:
    """Return the vector (Å) of fractions of a cell; vectors as for `offset`."""
    x = a * vectors[0][0] + b * vectors[1][0] + c * vectors[2][0]
    y = a * vectors[0][1] + b * vectors[1][1] + c * vectors[2][1]
    z = a * vectors[0][2] + b * vectors[1][2] + c * vectors[2][2]
    return x, y, z


def _write_nearest(vectors: Any, coords: Any, atoms: Any, images: Any, squares: Any) -> None:
    """Write the result of `nearest_squares`; images [27, 3] of a cell, Å."""
    for n in range(len(atoms)):
        for j in range(len(coords)):
            x, y, z = offset(coords[atoms[n]], coords[j], vectors)
            nearest = inf
            for k in range(len(images)):
                dx, dy, dz = x + images[k][0], y + images[k][1], z + images[k][2]
                nearest = min(nearest, dx * dx + dy * dy + dz * dz)
            squares[n][j] = nearest


_find_nearest = Compiled(_write_nearest, offset)


def volume_range(symbols: Sequence[str]) -> tuple[float, float]:
    """Return the least and largest volume of a cell with these atoms, Å^3."""
    of_atoms = sum(elements.get(symbol).volume for symbol in symbols)
    low, high = known().volumes
    return low * of_atoms, high * of_atoms


def pairs_within(vectors: Floats, coords: Floats, radius: float) -> tuple[Ints, Ints, Floats]:
    """Return the pairs of atoms within a radius, each from both ends, images of an atom among them.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        radius: Å.

    Returns:
        [n_pairs] first atoms, second atoms, and distances in Å.
    """
    import numpy as np
    from pymatgen.optimization.neighbors import find_points_in_spheres

    cell = np.ascontiguousarray(vectors, dtype=np.float64)
    points = np.ascontiguousarray((np.asarray(coords) % 1.0) @ cell)
    periodic = np.ones(3, dtype=np.int64)
    first, second, images, lengths = find_points_in_spheres(points, points, radius, periodic, cell, 1e-8)
    others = (first != second) | images.any(axis=1)
    return first[others], second[others], lengths[others]


def shortest(vectors: Floats, coords: Floats) -> float:
    """Return the shortest distance of two atoms, images too, Å; infinity where it is above CLOSEST."""
    return float(pairs_within(vectors, coords, CLOSEST)[2].min(initial=float("inf")))


def faults(vectors: Floats, coords: Floats, symbols: Sequence[str]) -> list[str]:
    """Return what sets a crystal apart from known ones, a short sentence each.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        symbols: element of each atom.

    Raises:
        InputError: an element without a token.
    """
    import numpy as np

    bounds, wrong = known(), []
    volume = abs(float(np.linalg.det(vectors)))
    low, high = volume_range(symbols)
    if not low <= volume <= high:
        wrong.append(
            f"volume: {volume / len(symbols):.1f} Å^3 per atom, known crystals of such atoms have "
            f"{low / len(symbols):.1f} to {high / len(symbols):.1f}"
        )
    names, kinds = np.unique(symbols, return_inverse=True)
    least = np.array([[bounds.least.get((a, b), 0.0) for b in names.tolist()] for a in names.tolist()])
    farthest = np.array([bounds.farthest[name] for name in names.tolist()])
    first, second, lengths = pairs_within(vectors, coords, max(least.max(), farthest.max()))
    closest = np.full(least.shape, np.inf)
    np.minimum.at(closest, (kinds[first], kinds[second]), lengths)
    wrong += [
        f"distance: {names[i]} and {names[j]} {closest[i, j]:.2f} Å apart, in known crystals "
        f"{least[i, j]:.2f} Å or more"
        for i, j in np.argwhere(np.triu(closest < least)).tolist()
    ]
    nearest = np.full(len(symbols), np.inf)
    np.minimum.at(nearest, first, lengths)
    wrong += [
        f"neighbors: {names[kind]} has none within {farthest[kind]:.2f} Å, in known crystals it has one"
        for kind in np.unique(kinds[nearest > farthest[kinds]]).tolist()
    ]
    return wrong
