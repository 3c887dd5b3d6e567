"""Which atoms of a crystal are bonded, and whether the bonds have a length that chemistry knows.

Bonds are those that CrystalNN finds (Pan et al., Inorg. Chem. 60, 1590, 2021; in pymatgen), those of an atom
with its own images left out. A bond is reasonable if 0.68 < d / d0 < 1.32 or, with hydrogen, d / d0 < 2.5.
d is the distance of nearest images. d0 is the average cationic radius of the less and the average anionic
radius of the more electronegative atom where the electronegativities differ by 1.7 or more, else the sum of
the atomic radii (`crystallm.elements`). The bond score of a crystal is the share of reasonable ones among its
bonds, each counted from both ends. This module refuses to know of texts.
"""

from __future__ import annotations

from functools import cache
from math import pi
from typing import TYPE_CHECKING

from crystallm import elements
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy import floating
    from numpy.typing import NDArray
    from pymatgen.core import Structure

MAX_ATOMS = 1000
"""Atoms in the cell beyond which bonds are not looked for."""
VOLUME_PER_ATOM = (0.3, 500.0)
"""Å^3 between which bonds are looked for; diamond has 5.7, solid xenon 58. Below, each atom has thousands of
neighbours in reach; above, the search widens until it has seen them all."""
MAX_POINTS = 20_000
"""Atoms that the search around one atom may have to look at."""


def score(structure: Structure, operators: NDArray[floating] | None = None) -> float:
    """Share of reasonable bonds of a crystal.

    Args:
        structure: an ordered crystal.
        operators: [n_ops, 3, 4] operators on fractional coordinates that may be symmetries. Atoms that true
            ones carry onto each other have the same neighbours, so one of each orbit is looked at.

    Raises:
        CrystallmError: it has no bonds between different atoms of the cell, an element without radius, or a
            cell in which neighbours can't be sought in reasonable time.
    """
    _refuse_freaks(structure)
    from pymatgen.analysis.local_env import CrystalNN

    finder = CrystalNN()  # type: ignore[no-untyped-call]
    symbols = [site.specie.symbol if site.is_ordered else "" for site in structure]
    if "" in symbols:
        raise CrystallmError(f"bonds: site {symbols.index('')} is shared or partly filled")
    coords = structure.frac_coords  # [n_atoms, 3]
    good = total = 0
    for i, size in _orbits(structure.lattice.metric_tensor, coords, symbols, operators):
        try:
            neighbours = [n["site_index"] for n in finder.get_nn_info(structure, i)]
        except Exception as error:  # noqa: BLE001 - Voronoi cells fail in many ways on odd crystals
            raise CrystallmError(f"bonds: neighbours of site {i}: {str(error)[:100]}") from None
        others = [j for j in neighbours if j != i]
        if not others:
            continue
        lengths = structure.lattice.get_all_distances(coords[i], coords[others])[0]  # Å
        total += size * len(others)
        for j, length in zip(others, lengths, strict=True):
            good += size * _reasonable(symbols[i], symbols[j], float(length))
    if total == 0:
        raise CrystallmError("bonds: no atom has a bond with another atom of the cell")
    return good / total


def _orbits(
    metric: NDArray[floating],
    coords: NDArray[floating],
    symbols: list[str],
    operators: NDArray[floating] | None,
) -> Iterator[tuple[int, int]]:
    """One atom of each orbit under those operators that are symmetries of the crystal, and the orbit's size.

    An operator (R, t) is one if R^T G R = G for the metric tensor G, and if it carries every atom to one of
    its element, both to within arithmetic: where a text's cell contradicts its group, or its rounding has
    left images 1e-4 apart, surroundings differ within a printed orbit, and each atom is looked at.
    """
    import numpy as np
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    if operators is None:
        yield from ((i, 1) for i in range(len(coords)))
        return
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
    ratio = length / _expected(*sorted((one, other)))
    return ratio < 2.5 if "H" in (one, other) else 0.68 < ratio < 1.32


@cache
def _expected(one: str, other: str) -> float:
    """Expected length of a bond, Å.

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


def _refuse_freaks(structure: Structure) -> None:
    """Refuse cells in which the neighbour search would run for minutes.

    CrystalNN looks at the sphere of 7 Å around an atom and doubles the radius until the atom's Voronoi cell
    is closed, which needs half the width of any empty layer. The cost is the number of atoms in that sphere.

    Raises:
        CrystallmError: too dense, too thin, too empty or too many atoms.
    """
    import numpy as np

    if len(structure) > MAX_ATOMS:
        raise CrystallmError(f"bonds: {len(structure)} atoms are more than the {MAX_ATOMS} that are judged")
    volume = structure.volume / len(structure)
    low, high = VOLUME_PER_ATOM
    if not low <= volume <= high:
        raise CrystallmError(f"bonds: a volume of {volume:.3g} Å^3 per atom is not in [{low:g}, {high:g}]")
    coords = np.sort(structure.frac_coords % 1, axis=0)  # [n_atoms, 3]
    # The widest empty slab along each axis, as a fraction, and how far the cell's faces are apart, Å.
    gaps = np.diff(coords, axis=0, append=coords[:1] + 1).max(axis=0)
    spacings = 1 / np.asarray(structure.lattice.reciprocal_lattice_crystallographic.abc)
    gap = float((gaps * spacings).max())
    radius = 7.0
    while radius < gap / 2:
        radius *= 2
    points = 4 / 3 * pi * radius**3 / volume
    if points > MAX_POINTS:
        raise CrystallmError(f"bonds: an empty layer of {gap:.0f} Å parts the atoms")
