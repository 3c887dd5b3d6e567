"""What it takes to compare many structures safely: structures as JSON for worker processes, and freak cells.

pymatgen's StructureMatcher decides whether two structures are equal; here stands what may be handed to it.
Refuses to know who asks: the benchmark of structure prediction, or the folding of equal answers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Lattice, Structure


MAX_ATOMS = 500
"""Atoms beyond which a structure is not compared."""

MAX_STRETCH = 14.0
"""See `too_stretched`."""


def too_stretched(sample: Structure, truth: Structure) -> bool:
    """Whether the sample's cell is so much longer or flatter than the truth's that they can't match.

    The matcher looks for the truth's lattice among all vectors of the sample's lattice up to 1.3 times the
    longest one, some s = L^3 / V of them; for a needle of a cell that is gigabytes. A match needs three
    vectors of one lattice whose lengths are within 30 % of the reduced ones of the other, at equal volume.
    With V <= L1 L2 L3 <= sqrt(2) V for reduced cells, the longest ones differ by at most 1.3^2 sqrt(2) = 2.4
    times, and the s of primitive cells by at most 14 times.
    """
    bound = MAX_STRETCH * stretch(truth.lattice)
    if stretch(sample.lattice) <= bound:
        return False
    return stretch(sample.get_primitive_structure().lattice) > MAX_STRETCH * stretch(
        truth.get_primitive_structure().lattice
    )


def stretch(lattice: Lattice) -> float:
    """L^3 / V of the reduced cell, L its longest vector; 0 where spglib can't reduce it."""
    import numpy as np
    import spglib

    matrix: Any = lattice.matrix
    try:
        reduced = spglib.niggli_reduce(matrix)  # pymatgen's own takes half a minute for a needle
    except Exception:  # noqa: BLE001 - spglib's errors differ between versions; the limits of the worker remain
        return 0.0
    return 0.0 if reduced is None else float(np.linalg.norm(reduced, axis=1).max() ** 3 / lattice.volume)


def formula_of(counts: Mapping[str, float]) -> str:
    """The reduced formula of element counts, `Cl1Na1` of Na4Cl4; fractions stay as they are."""
    if all(count == round(count) for count in counts.values()):
        divisor = math.gcd(*(round(count) for count in counts.values())) or 1
        counts = {symbol: round(count) // divisor for symbol, count in counts.items()}
    return "".join(f"{symbol}{counts[symbol]:g}" for symbol in sorted(counts) if counts[symbol])
