"""Which atoms of a crystal are bonded, and whether the bonds have a length that chemistry knows.

Bonds are those that CrystalNN finds (`crystallm.geometry.neighbors`), those of an atom with its own images
left out.
A bond is reasonable if 0.68 < d / d0 < 1.32 or, with hydrogen, d / d0 < 2.5. d is the distance of nearest
images. d0 is the average cationic radius of the less and the average anionic radius of the more
electronegative atom where the electronegativities differ by 1.7 or more, else the sum of the atomic radii
(`crystallm.crystallography.elements`). The bond score of a crystal is the share of reasonable ones among
its bonds, each counted from both ends. This module refuses to know of texts.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from math import hypot, inf, pi
from typing import TYPE_CHECKING

from crystallm.crystallography import elements
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystallm.crystallography.space_groups import Floats


MAX_ATOMS = 1000
"""Atoms in the cell beyond which bonds are not looked for."""

VOLUME_PER_ATOM = (0.3, 500.0)
"""Å^3 between which bonds are looked for; diamond has 5.7, solid xenon 58. Below, each atom has thousands of
neighbours in reach; above, the search widens until it has seen them all."""

MAX_POINTS = 20_000
"""Atoms that the search around one atom may have to look at."""

MAX_PAIRS = 100_000
"""Pairs of atoms whose distances are looked at together."""

_DOUBT = 1e-6  # Å, more than arithmetic is wrong by


def score(
    vectors: Floats,
    coords: Floats,
    symbols: Sequence[str],
    orbits: Iterable[tuple[int, int]] | None = None,
) -> float:
    """Share of reasonable bonds of a crystal.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        symbols: an element for each atom.
        orbits: one atom of each set with the same surroundings, and the size of the set; all atoms if None.

    Raises:
        CrystallmError: it has no bonds between different atoms of the cell, an element without radius, or a
            cell in which neighbours can't be sought in reasonable time.
    """
    chosen = [(i, 1) for i in range(len(coords))] if orbits is None else list(orbits)
    sizes = dict(chosen)
    good = total = 0
    for i, _, reasonable in _bonds(vectors, coords, symbols, list(sizes)):
        total += sizes[i]
        good += sizes[i] * reasonable
    if total == 0:
        raise CrystallmError("bonds: no atom has a bond with another atom of the cell")
    return good / total


def odd(
    vectors: Floats, coords: Floats, symbols: Sequence[str], atoms: Sequence[int]
) -> list[tuple[int, int]]:
    """Bonds of no reasonable length, with an atom at either end; asks for bonds only where there may be some.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        symbols: an element for each atom.
        atoms: one of each set with the same surroundings: those whose bonds are looked at.

    Raises:
        CrystallmError: an element without radius, or a cell in which neighbours can't be sought in reasonable
            time.
    """
    doubtful = _may_have_odd(vectors, coords, symbols, atoms)
    some = [i for i, doubt in zip(atoms, doubtful, strict=True) if doubt]
    if not some:
        return []
    return [(i, j) for i, j, reasonable in _bonds(vectors, coords, symbols, some) if not reasonable]


def _bonds(
    vectors: Floats, coords: Floats, symbols: Sequence[str], atoms: Sequence[int]
) -> Iterator[tuple[int, int, bool]]:
    """Bonds of some atoms with others: one end, the other, and whether the length is reasonable."""
    _refuse_freaks(vectors, coords)
    from crystallm.geometry.neighbors import NeighborFinder

    try:
        found = NeighborFinder(vectors, coords, symbols).of_each(atoms)
    except CrystallmError as error:
        raise CrystallmError(f"bonds: {error}") from None
    for i, (neighbours, lengths) in zip(atoms, found, strict=True):
        for j, length in zip(neighbours.tolist(), lengths.tolist(), strict=True):
            if j != i:
                yield i, j, _reasonable(symbols[i], symbols[j], length)


def _may_have_odd(
    vectors: Floats, coords: Floats, symbols: Sequence[str], atoms: Sequence[int]
) -> Sequence[bool]:
    """Whether each of some atoms has another within reach of a bond, at no reasonable distance."""
    import numpy as np

    if len(atoms) * len(coords) > MAX_PAIRS:
        return [True] * len(atoms)
    kinds = list(dict.fromkeys(symbols))
    places = {symbol: place for place, symbol in enumerate(kinds)}
    table = np.array([[_reasonable_within_reach(a, b) for b in kinds] for a in kinds])
    spacings = [1 / hypot(*column) for column in np.linalg.inv(vectors).T.tolist()]
    # Of images up to 1.5 cells away along each axis the nearest is the nearest of all within 1.5 spacings.
    if not table[:, :, 2].max() < 1.5 * min(spacings):
        return [True] * len(atoms)
    kind = np.array([places[symbol] for symbol in symbols])
    off = coords - coords[atoms][:, None]  # [n, n_atoms, 3]
    ways = (off - np.rint(off)) @ vectors
    shifts = _shifts() @ vectors  # [27, 3] Å
    # |w + s|^2 = |w|^2 + 2 w . s + |s|^2
    squares = (ways @ (2 * shifts.T) + np.einsum("ij,ij->i", shifts, shifts)).min(axis=2)
    squares += np.einsum("ijk,ijk->ij", ways, ways)  # [n, n_atoms] Å^2
    limits = (table * table)[kind[atoms]][:, kind]  # [n, n_atoms, 3]
    far = (squares < limits[:, :, 2]) & ~((limits[:, :, 0] < squares) & (squares < limits[:, :, 1]))
    far[range(len(atoms)), atoms] = False  # bonds of an atom with its own images do not count
    found: list[bool] = far.any(axis=1).tolist()
    return found


@cache
def _shifts() -> Floats:
    """Those [27, 3] to a cell and its neighbours, fractions."""
    import numpy as np

    return np.array(list(product((-1.0, 0.0, 1.0), repeat=3)))


@cache
def _reasonable_within_reach(one: str, other: str) -> tuple[float, float, float]:
    """Lengths between which a bond is surely reasonable, and from which on there is none, Å."""
    from crystallm.geometry.neighbors import reach

    try:
        expected = expected_length(one, other)
    except CrystallmError:
        return inf, 0.0, reach(one, other) + _DOUBT  # whatever the length
    low, high = (0.0, 2.5) if "H" in (one, other) else (0.68, 1.32)
    return low * expected + _DOUBT, high * expected - _DOUBT, reach(one, other) + _DOUBT


def orbits(
    vectors: Floats, coords: Floats, symbols: Sequence[str], operators: Floats
) -> Iterator[tuple[int, int]]:
    """One atom of each orbit under those operators that are symmetries of the crystal, and the orbit's size.

    Atoms that symmetries carry onto each other have the same neighbours. An operator (R, t) is one if
    R^T G R = G for the metric tensor G, and if it carries every atom to one of its element, both to within
    arithmetic: where a text's cell contradicts its group, or its rounding has left images 1e-4 apart,
    surroundings differ within a printed orbit, and each atom is looked at.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        symbols: an element for each atom.
        operators: [n_ops, 3, 4] operators on fractional coordinates that may be symmetries.
    """
    import numpy as np
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    metric = vectors @ vectors.T
    rotations, shifts = operators[:, :, :3], operators[:, :, 3]
    turned = rotations.transpose(0, 2, 1) @ metric @ rotations  # [n_ops, 3, 3]
    isometric = np.abs(turned - metric).max(axis=(1, 2)) < 1e-6 * metric.max()
    images = np.einsum("oij,nj->oni", rotations[isometric], coords) + shifts[isometric, None]
    # Twice, for -1e-17 modulo 1 is 1.
    tree = cKDTree(coords % 1 % 1, boxsize=1)
    apart, onto = tree.query(images % 1 % 1, p=np.inf)  # [n_ops, n_atoms]
    kinds = np.unique(symbols, return_inverse=True)[1]
    true = ((apart < 1e-6) & (kinds[onto] == kinds)).all(axis=1)
    first = np.minimum(onto[true].min(axis=0, initial=len(coords)), np.arange(len(coords)))
    for i, size in zip(*np.unique(first, return_counts=True), strict=True):
        yield int(i), int(size)


def _reasonable(one: str, other: str, length: float) -> bool:
    """Whether a bond of that length (Å) is plausible between two elements."""
    ratio = length / expected_length(one, other)
    return ratio < 2.5 if "H" in (one, other) else 0.68 < ratio < 1.32


@cache
def expected_length(one: str, other: str) -> float:
    """Expected length of a bond between two elements, Å; d0 of the module, the same either way round.

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


def _refuse_freaks(vectors: Floats, coords: Floats) -> None:
    """Refuse cells in which the neighbour search would run for minutes.

    The search looks at the sphere of 7 Å around an atom and doubles the radius until the atom's Voronoi cell
    is closed, which needs half the width of any empty layer. The cost is the number of atoms in that sphere.

    Raises:
        CrystallmError: too dense, too thin, too empty or too many atoms.
    """
    import numpy as np

    n_atoms = len(coords)
    if n_atoms > MAX_ATOMS:
        raise CrystallmError(f"bonds: {n_atoms} atoms are more than the {MAX_ATOMS} that are judged")
    volume = abs(float(np.linalg.det(vectors))) / n_atoms
    low, high = VOLUME_PER_ATOM
    if not low <= volume <= high:
        raise CrystallmError(f"bonds: a volume of {volume:.3g} Å^3 per atom is not in [{low:g}, {high:g}]")
    ordered = np.sort(coords % 1, axis=0)  # [n_atoms, 3]
    # The widest empty slab along each axis, as a fraction, and how far the cell's faces are apart, Å.
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
