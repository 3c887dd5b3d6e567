"""A fast proof that a crystal has no symmetry beyond the space group it was built with.

A crystal built from orbits of a space group G has all operators of G. spglib, which merges atoms within a
tolerance, finds G itself if nothing else maps the crystal onto itself. Where the lattice is cubic, hexagonal,
or tetragonal and far from cubic, the other candidates are a short list: the rotations R of the lattice, each
with the translations t = x_j - R x_i that map an atom i of the rarest element onto one of its kind. If each
of these (R, t) outside G leaves an atom at least `MARGIN` from all of its kind, the answer is yes, in a
fraction of the time of spglib. Else spglib has to decide.

An operator that spglib accepts moves each atom to within 0.1 Å of another; with t fitted to atom i alone, to
within 0.2 Å.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations, product

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.crystallography.space_groups import Floats, Ints

MARGIN = 0.3
"""Å by which an operator must miss."""
CUBIC = 0.15
"""Relative deviation from the ratios c / a of cubic lattices, 1 and sqrt(2), above which a tetragonal lattice
has no other rotations, although spglib lets angles differ by 5 degrees."""
MAX_PAIRS = 100_000
"""Most pairs of atoms that are compared; spglib is faster with more."""
SAME = 1e-6


@cache
def _rotations(system: str) -> Ints:
    """Return the rotations [n, 3, 3] of a lattice on fractional coordinates, det(R) = -1 included."""
    if system == "hexagonal":
        sixth = np.array([[1, -1, 0], [1, 0, 0], [0, 0, 1]])
        turns = [np.linalg.matrix_power(sixth, k) for k in range(6)]
        flip, mirror = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]), np.diag([1, 1, -1])
        turns += [turn @ flip for turn in turns]
        return np.array(turns + [turn @ mirror for turn in turns])
    signed = [
        np.diag(signs) @ np.eye(3, dtype=int)[list(order)]
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
        if system == "cubic" or order[2] == 2  # of a tetragonal lattice the third axis stays
    ]
    return np.array(signed)


@cache
def _operators(number: int) -> tuple[Ints, Floats] | None:
    """Return the rotations [n, 3, 3] of the lattice of a group, and the translations [n, m, 3] of each.

    Translations of rotations that the group does not have are NaN. None where other rotations may come close.
    """
    group = space_groups.get(number)
    system = group.crystal_system
    if system == "trigonal" and not group.symbol.startswith("R"):
        system = "hexagonal"
    if system not in ("tetragonal", "hexagonal", "cubic"):
        return None
    rotations = _rotations(system)
    own = [
        group.translations[(group.rotations == rotation).all(axis=(1, 2))]  # [0 or m, 3]
        for rotation in rotations
    ]
    most = max(map(len, own))
    if len(group.rotations) != sum(map(len, own)):
        raise AssertionError(f"{group.symbol} has operators that its lattice does not have")
    empty = np.full((most, 3), np.nan)
    return rotations, np.array([shifts if len(shifts) else empty for shifts in own])


def has_none(number: int, vectors: Floats, points: Floats, kinds: Ints) -> bool:
    """Return True if no operator outside a group maps a crystal nearly onto itself; False if unknown.

    Args:
        number: of the group, a symmetry of the crystal.
        vectors: [3, 3] of the conventional cell (rows), Å.
        points: [n_atoms, 3] fractions.
        kinds: [n_atoms] numbers from 0, one per element.
    """
    operators = _operators(number)
    if operators is None or (75 <= number <= 142 and _nearly_cubic(vectors)):
        return False
    rotations, translations = operators
    sizes = np.bincount(kinds)
    rarest = points[kinds == np.where(sizes, sizes, len(kinds) + 1).argmin()]  # [n_rarest, 3]
    if len(rotations) * len(rarest) * len(points) ** 2 > MAX_PAIRS:
        return False
    shifts = rarest - (rotations @ rarest[0])[:, None]  # [n_rotations, n_rarest, 3]
    off = shifts[:, :, None] - translations[:, None]  # [n_rotations, n_rarest, m, 3]
    others = ~(np.abs(off - np.rint(off)) < SAME).all(axis=3).any(axis=2)
    which, _ = np.nonzero(others)
    if not len(which):
        return True
    images = points @ rotations[which].transpose(0, 2, 1) + shifts[others][:, None]  # [n_others, n_atoms, 3]
    apart = images[:, :, None] - points  # [n_others, n_atoms, n_atoms, 3]
    # A vector shorter than the margin is the shortest one, in any cell that holds atoms.
    gaps = (apart - np.rint(apart)) @ vectors
    near = (np.einsum("ijkl,ijkl->ijk", gaps, gaps) < MARGIN**2) & (kinds[:, None] == kinds)
    return not near.any(axis=2).all(axis=1).any()


def _nearly_cubic(vectors: Floats) -> bool:
    """Return whether a tetragonal cell is close to that of a cubic lattice."""
    ratio = float(vectors[2, 2] / vectors[0, 0])
    return any(abs(ratio / cubic - 1) < CUBIC for cubic in (1.0, 2**0.5))
