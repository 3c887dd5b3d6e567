"""Symmetry of a periodic arrangement of atoms, found by spglib.

    find_symmetry(L, X, k, symprec)   rows of L: lattice vectors, Å; rows of X: fractional coordinates;
                                      k: an integer per atom, equal for equal atoms

The angle tolerance of 5 degrees is pymatgen's. With spglib's own, which it derives from symprec, some results
of the validity checks of the CrystaLLM paper would differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

SYMPREC = 0.1
"""Distance tolerance, Å."""
ANGLE_TOLERANCE = 5.0
"""Degrees."""


def find_symmetry(
    lattice: ArrayLike,
    positions: ArrayLike,
    kinds: Sequence[int] | np.ndarray[Any, Any],
    symprec: float = SYMPREC,
    angle_tolerance: float = ANGLE_TOLERANCE,
) -> Any | None:
    """Return spglib's symmetry dataset; None if it finds no symmetry, for atoms on top of each other.

    Args:
        lattice: vectors as rows, Å, (3, 3).
        positions: fractional coordinates, (n_atoms, 3).
        kinds: for each atom an integer, such as its atomic number.
        symprec: distance tolerance, Å.
        angle_tolerance: degrees.

    Raises:
        ImportError: spglib is not installed.
    """
    import spglib

    if not (np.isfinite(lattice).all() and np.isfinite(positions).all()):
        return None  # spglib would end the process
    cell: Any = (lattice, positions, kinds)
    try:
        return spglib.get_symmetry_dataset(cell, symprec=symprec, angle_tolerance=angle_tolerance)
    except Exception:  # noqa: BLE001 - spglib's errors differ between versions, and mean that it finds none
        return None
