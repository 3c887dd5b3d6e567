"""Bonded atoms, and whether the bond lengths are plausible.

Bonds are those of CrystalNN (`geometry.neighbors`) without bonds of an atom to its own images. A bond is
reasonable if 0.68 < d / d0 < 1.32 or, with hydrogen, d / d0 < 2.5, where d is the distance of nearest images.
d0 is the average cationic radius of the less and the average anionic radius of the more electronegative atom
where the electronegativities differ by 1.7 or more, else the sum of the atomic radii
(`crystallography.elements`). The bond score of a crystal is the share of reasonable bonds, each counted from
both ends.
"""

from __future__ import annotations

from functools import cache
from math import hypot, inf, pi
from typing import TYPE_CHECKING

from crystallm.crystallography import elements
from crystallm.errors import CrystallmError
from crystallm.geometry import distances

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystallm.crystallography.space_groups import Floats, Ints

MAX_ATOMS = 1000
"""Most atoms of a cell whose bonds are searched."""
VOLUME_PER_ATOM = (0.3, 500.0)
"""Å^3 between which bonds are searched; diamond has 5.7, solid xenon 58. Below, each atom has thousands of
neighbors in reach; above, the search widens until it includes all atoms."""
MAX_POINTS = 20_000
"""Most atoms in the search around one atom."""
MAX_PAIRS = 100_000
"""Most pairs of atoms whose distances are computed together."""
FEW_IMAGES = 40_000
"""Most pairs of an image and an atom that are compared each with each."""

_ROUNDING = 1e-6  # Å, above the error of arithmetic


def score(
    vectors: Floats,
    coords: Floats,
    symbols: Sequence[str],
    orbits: Iterable[tuple[int, int]] | None = None,
) -> float:
    """Return the share of reasonable bonds of a crystal.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        orbits: one atom of each set with equal neighborhoods, and the size of the set; all atoms if None.

    Raises:
        CrystallmError: no bonds between different atoms of the cell, an element without radius, or a cell
            too dense, too empty or too large for the search.
    """
    chosen = [(i, 1) for i in range(len(coords))] if orbits is None else list(orbits)
    sizes = dict(chosen)
    n_good = total = 0
    for i, _, reasonable in _bonds(vectors, coords, symbols, list(sizes)):
        total += sizes[i]
        n_good += sizes[i] * reasonable
    if total == 0:
        raise CrystallmError("bonds: no atom has a bond with another atom of the cell")
    return n_good / total


def implausible(
    vectors: Floats, coords: Floats, symbols: Sequence[str], atoms: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the bonds of no reasonable length as pairs of atoms; skip atoms that surely have none.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        atoms: whose bonds are checked: one of each set with equal neighborhoods.

    Raises:
        CrystallmError: an element without radius, or a cell too dense, too empty or too large for the search.
    """
    doubtful = _may_be_implausible(vectors, coords, symbols, atoms)
    some = [i for i, doubt in zip(atoms, doubtful, strict=True) if doubt]
    if not some:
        return []
    return [(i, j) for i, j, reasonable in _bonds(vectors, coords, symbols, some) if not reasonable]


def _bonds(
    vectors: Floats, coords: Floats, symbols: Sequence[str], atoms: Sequence[int]
) -> Iterator[tuple[int, int, bool]]:
    """Yield the bonds of some atoms with others: both ends, and whether the length is reasonable."""
    _require_searchable(vectors, coords)
    from crystallm.geometry.neighbors import NeighborFinder

    try:
        finder = NeighborFinder(vectors, coords, symbols)
        neighbors = finder.of_each(atoms)
    except CrystallmError as error:
        raise CrystallmError(f"bonds: {error}") from None
    for i, (bonded, lengths) in zip(atoms, neighbors, strict=True):
        for j, length in zip(bonded.tolist(), lengths.tolist(), strict=True):
            if j != i:
                yield i, j, _reasonable(symbols[i], symbols[j], length)


def _may_be_implausible(
    vectors: Floats, coords: Floats, symbols: Sequence[str], atoms: Sequence[int]
) -> Sequence[bool]:
    """Return for each of some atoms whether another is in reach of a bond, at no reasonable distance."""
    import numpy as np

    if len(atoms) * len(coords) > MAX_PAIRS:
        return [True] * len(atoms)
    kinds = list(dict.fromkeys(symbols))
    kind_of = {symbol: kind for kind, symbol in enumerate(kinds)}
    table = np.array([[_reasonable_within_reach(a, b) for b in kinds] for a in kinds])
    spacings = [1 / hypot(*column) for column in np.linalg.inv(vectors).T.tolist()]
    # The nearest image among those up to 1.5 cells away along each axis is the nearest within 1.5 spacings.
    if not table[:, :, 2].max() < 1.5 * min(spacings):
        return [True] * len(atoms)
    kind = np.array([kind_of[symbol] for symbol in symbols])
    squares = distances.nearest_squares(vectors, coords, atoms)
    limits = (table * table)[kind[atoms]][:, kind]  # [n, n_atoms, 3]
    doubtful = (squares < limits[:, :, 2]) & ~((limits[:, :, 0] < squares) & (squares < limits[:, :, 1]))
    doubtful[range(len(atoms)), atoms] = False  # bonds of an atom with its own images do not count
    flags: list[bool] = doubtful.any(axis=1).tolist()
    return flags


@cache
def _reasonable_within_reach(one: str, other: str) -> tuple[float, float, float]:
    """Return the lengths between which a bond is surely reasonable, and from which there is none, Å."""
    from crystallm.geometry.neighbors import reach

    try:
        low, high = reasonable_lengths(one, other)
    except CrystallmError:
        return inf, 0.0, reach(one, other) + _ROUNDING  # whatever the length
    return low + _ROUNDING, high - _ROUNDING, reach(one, other) + _ROUNDING


def orbits(
    vectors: Floats, coords: Floats, symbols: Sequence[str], operators: Floats
) -> Iterator[tuple[int, int]]:
    """Yield one atom of each orbit under those operators that are symmetries, and the orbit size.

    Atoms related by symmetry have equal neighborhoods. An operator (R, t) is a symmetry if R^T G R = G for
    the metric tensor G, and if it maps every atom to one of its element, both to within rounding. Where the
    cell contradicts the group, or printed digits leave images 1e-4 apart, neighborhoods differ within a
    printed orbit, and each atom is an orbit of its own.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        operators: [n_ops, 3, 4] operators on fractional coordinates that may be symmetries.
    """
    import numpy as np

    metric = vectors @ vectors.T
    rotations, shifts = operators[:, :, :3], operators[:, :, 3]
    turned = rotations.transpose(0, 2, 1) @ metric @ rotations  # [n_ops, 3, 3]
    isometric = np.abs(turned - metric).max(axis=(1, 2)) < 1e-6 * metric.max()
    images = np.einsum("oij,nj->oni", rotations[isometric], coords) + shifts[isometric, None]
    apart, onto = _nearest(images, coords)
    kinds = np.unique(symbols, return_inverse=True)[1]
    true = ((apart < 1e-6) & (kinds[onto] == kinds)).all(axis=1)
    first = np.minimum(onto[true].min(axis=0, initial=len(coords)), np.arange(len(coords)))
    for i, size in zip(*np.unique(first, return_counts=True), strict=True):
        yield int(i), int(size)


def _nearest(points: Floats, coords: Floats) -> tuple[Floats, Ints]:
    """Return how far the nearest atom is from each point [..., 3], as the largest fraction, and which it is.

    Few are compared each with each, which is faster, and scipy's import takes a quarter of a second.
    """
    import numpy as np

    if points.size // 3 * len(coords) <= FEW_IMAGES:
        apart = np.zeros((*points.shape[:-1], len(coords)))
        for axis in range(3):
            off = points[..., axis, None] - coords[:, axis]
            np.maximum(apart, np.abs(off - np.rint(off)), out=apart)
        return apart.min(axis=-1), apart.argmin(axis=-1)
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    # Twice, for -1e-17 modulo 1 is 1.
    apart, nearest = cKDTree(coords % 1 % 1, boxsize=1).query(points % 1 % 1, p=np.inf)
    return apart, nearest


def _reasonable(one: str, other: str, length: float) -> bool:
    """Return whether a bond of that length (Å) is plausible between two elements."""
    low, high = _ratio_bounds(one, other)
    return low < length / expected_length(one, other) < high


def reasonable_lengths(one: str, other: str) -> tuple[float, float]:
    """Return the lengths between which a bond is reasonable, Å.

    Raises:
        CrystallmError: an element has no radius.
    """
    expected = expected_length(one, other)
    low, high = _ratio_bounds(one, other)
    return low * expected, high * expected


def _ratio_bounds(one: str, other: str) -> tuple[float, float]:
    """Return the bounds of d / d0 of the module docstring for two elements."""
    return (-inf, 2.5) if "H" in (one, other) else (0.68, 1.32)


@cache
def expected_length(one: str, other: str) -> float:
    """Return the expected length of a bond between two elements, Å: d0 of the module docstring, symmetric.

    Raises:
        CrystallmError: an element has no radius.
    """
    less, more = sorted((elements.get(one), elements.get(other)), key=lambda e: e.electronegativity)
    if abs(more.electronegativity - less.electronegativity) >= 1.7:  # never with NaN, as in the original
        expected = less.average_cationic_radius + more.average_anionic_radius
    elif less.atomic_radius is None or more.atomic_radius is None:
        raise CrystallmError(f"bonds: there is no atomic radius for {one} or {other}")
    else:
        expected = less.atomic_radius + more.atomic_radius
    if expected <= 0:
        raise CrystallmError(f"bonds: there are no ionic radii for {one} and {other}")
    return expected


def _require_searchable(vectors: Floats, coords: Floats) -> None:
    """Raise CrystallmError for pathological cells, in which the neighbor search would run for minutes.

    The search takes the sphere of 7 Å around an atom and doubles the radius until the Voronoi cell of the
    atom is closed, which needs half the width of any empty layer. The cost is the number of atoms in that
    sphere.
    """
    import numpy as np

    n_atoms = len(coords)
    if n_atoms > MAX_ATOMS:
        raise CrystallmError(f"bonds: {n_atoms} atoms are more than the maximum of {MAX_ATOMS}")
    volume = abs(float(np.linalg.det(vectors))) / n_atoms
    low, high = VOLUME_PER_ATOM
    if not low <= volume <= high:
        raise CrystallmError(f"bonds: a volume of {volume:.3g} Å^3 per atom is not in [{low:g}, {high:g}]")
    ordered = np.sort(coords % 1, axis=0)  # [n_atoms, 3]
    # The widest empty layer along each axis, as a fraction, and the distances of opposite cell faces, Å.
    gaps = ordered[0] + 1 - ordered[-1]
    if n_atoms > 1:
        gaps = np.maximum(gaps, (ordered[1:] - ordered[:-1]).max(axis=0))
    spacings = (1 / hypot(*column) for column in np.linalg.inv(vectors).T.tolist())
    gap = max(share * spacing for share, spacing in zip(gaps.tolist(), spacings, strict=True))
    radius = 7.0
    while radius < gap / 2:
        radius *= 2
    points = 4 / 3 * pi * radius**3 / volume
    if points > MAX_POINTS:
        raise CrystallmError(f"bonds: an empty layer of {gap:.0f} Å parts the atoms")
