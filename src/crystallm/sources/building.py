"""Structures from cells, elements and positions of any format: checked, right-handed, each atom once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.cif.site_rows import FULL
from crystallm.crystallography.cells import right_handed
from crystallm.crystallography.element_names import element
from crystallm.errors import TextError
from crystallm.geometry import special_positions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.core import Structure

MAX_ATOMS = 20_000
"""Maximum number of atoms in a cell."""
MIN_VOLUME = 1e-3
"""Minimum volume of a cell, Å^3."""


def shares(parts: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Return elements of a site and their shares, without charges: `Fe3+` is Fe, D is H.

    Args:
        parts: names and shares.

    Raises:
        TextError: a name is not an element, or a share is not one.
    """
    found: dict[str, float] = {}
    for name, share in parts:
        symbol, value = element(str(name)), float(share)
        if not 0 < value <= 1 + FULL:
            raise TextError(f"{value:g} is no share of a site")
        found[symbol] = found.get(symbol, 0.0) + value
    if not found:
        raise TextError("a site holds no element")
    if sum(found.values()) > 1 + 2 * FULL:
        raise TextError(f"a site is occupied {sum(found.values()):g} times")
    if len(found) == 1 and abs(next(iter(found.values())) - 1) <= FULL:
        return dict.fromkeys(found, 1.0)
    return found


def periodic(axes: Any) -> None:
    """Check that a crystal is periodic in three directions; true alone and three true values are.

    Raises:
        TextError: it is not, or this cannot be read.
    """
    flags = [axes] * 3 if isinstance(axes, bool | int) else axes
    if not isinstance(flags, list | tuple) or len(flags) != 3 or any(flag not in (True, 1) for flag in flags):
        raise TextError("it is not periodic in three directions")


def cell(vectors: Any) -> list[list[float]]:
    """Return the vectors of a cell, Å, (3, 3).

    Raises:
        TextError: they are missing, or without volume.
    """
    if vectors is None or any(x is None for vector in vectors if vector is not None for x in vector):
        raise TextError("no cell: it is not periodic in three directions")
    a, b, c = ([float(x) for x in vector] for vector in vectors)
    if not all(len(vector) == 3 and all(map(math.isfinite, vector)) for vector in (a, b, c)):
        raise TextError("no cell: its vectors are not three of three numbers")
    volume = float(np.linalg.det([a, b, c]))
    if not MIN_VOLUME < abs(volume) < math.inf:
        raise TextError("no cell: it has no volume")
    return [a, b, c]


def cell_of_parameters(lattice: Mapping[str, Any]) -> list[list[float]]:
    """Return the vectors of a cell, Å, (3, 3), by lengths and angles.

    Raises:
        TextError: one is missing, or no cell has them.
    """
    from pymatgen.core import Lattice

    names = ("a", "b", "c", "alpha", "beta", "gamma")
    if any(lattice.get(name) is None for name in names):
        raise TextError("its lattice has neither a matrix nor lengths and angles")
    return cell(Lattice.from_parameters(*(float(lattice[name]) for name in names)).matrix.tolist())


def build(
    vectors: list[list[float]], species: Sequence[dict[str, float]], positions: Any, *, cartesian: bool
) -> Structure:
    """Return a structure.

    Args:
        vectors: of the cell, Å.
        species: shares of elements of each site.
        positions: (n_atoms, 3), Å or fractions.
        cartesian: whether they are in Å.

    Raises:
        TextError: numbers are missing or not finite, or atoms are on top of each other.
    """
    from pymatgen.core import Structure

    if not species or len(species) != len(positions):
        raise TextError(f"{len(positions)} positions for {len(species)} atoms")
    if len(species) > MAX_ATOMS:
        raise TextError(f"{len(species)} atoms are more than the {MAX_ATOMS} that are read")
    if any(position is None or any(x is None for x in position) for position in positions):
        raise TextError("a position is not known")
    coords = [[float(x) for x in position] for position in positions]
    if not all(len(position) == 3 and all(map(math.isfinite, position)) for position in coords):
        raise TextError("a position is not of three numbers")
    matrix, points = np.array(vectors, dtype=float), np.array(coords)
    if cartesian:
        points = points @ np.linalg.inv(matrix)
    matrix, points = right_handed(matrix, points)
    for i, j in special_positions.coincident(points, matrix, special_positions.SAME):
        names = " and ".join("/".join(species[k]) for k in sorted((i, j)))
        raise TextError(f"atoms {min(i, j) + 1} and {max(i, j) + 1} ({names}) are on top of each other")
    whole: Sequence[Any] = [next(iter(s)) if list(s.values()) == [1.0] else s for s in species]
    return Structure(matrix, whole, points)
