"""Whether two structures are equal: pymatgen's StructureMatcher, and what may be given to it.

A matcher takes lengths within a share of each other, positions within a share of (V / n_atoms)^(1/3), and
angles within some degrees; it scales both structures to the same volume by default.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Lattice, Structure
    from pymatgen.core.structure_matcher import StructureMatcher


class Tolerances(NamedTuple):
    """Tolerances of a matcher: shares of a length and of (V / n_atoms)^(1/3), degrees."""

    length: float
    position: float
    angle: float


EQUAL = Tolerances(0.2, 0.3, 5.0)
"""pymatgen's defaults."""

CSP = Tolerances(0.3, 0.5, 10.0)
"""Those of the benchmark of crystal structure prediction."""

RELAXED = Tolerances(0.5, 0.5, 10.0)
"""MatterGen's, for a structure before and after relaxation."""
MAX_ATOMS = 500
"""Structures with more atoms are not compared."""
MAX_STRETCH = 14.0
"""See `too_stretched`."""


@cache
def matcher(tolerances: Tolerances = EQUAL, **options: Any) -> StructureMatcher:
    """Return a StructureMatcher with these tolerances; options as pymatgen's."""
    from pymatgen.core.structure_matcher import StructureMatcher

    length, position, angle = tolerances
    return StructureMatcher(ltol=length, stol=position, angle_tol=angle, **options)


def too_stretched(sample: Structure, reference: Structure) -> bool:
    """Return whether the cell of a sample is too long or flat to match a reference structure.

    The matcher looks for the reference lattice among all vectors of the sample's lattice up to 1.3 times the
    longest one, some s = L^3 / V of them; for a needle-like cell that takes gigabytes. A match needs three
    vectors of one lattice whose lengths are within 30 % of the reduced ones of the other, at equal volume.
    With V <= L1 L2 L3 <= sqrt(2) V for reduced cells, the longest ones differ by at most 1.3^2 sqrt(2) = 2.4
    times, and the s of primitive cells by at most 14 times.
    """
    if stretch(sample.lattice) <= MAX_STRETCH * stretch(reference.lattice):
        return False
    return stretch(sample.get_primitive_structure().lattice) > MAX_STRETCH * stretch(
        reference.get_primitive_structure().lattice
    )


def stretch(lattice: Lattice) -> float:
    """Return L^3 / V of the reduced cell, L its longest vector; 0 if spglib cannot reduce it."""
    import numpy as np
    import spglib

    matrix: Any = lattice.matrix
    try:
        reduced = spglib.niggli_reduce(matrix)  # pymatgen's own takes half a minute for a needle
    except Exception:  # noqa: BLE001 - spglib's errors differ between versions; the limits of the worker remain
        return 0.0
    return 0.0 if reduced is None else float(np.linalg.norm(reduced, axis=1).max() ** 3 / lattice.volume)


def formula_of(counts: Mapping[str, float]) -> str:
    """Return the reduced formula of element counts, `Cl1Na1` of Na4Cl4; fractions stay as they are."""
    if all(count == round(count) for count in counts.values()):
        divisor = math.gcd(*(round(count) for count in counts.values())) or 1
        counts = {symbol: round(count) // divisor for symbol, count in counts.items()}
    return "".join(f"{symbol}{counts[symbol]:g}" for symbol in sorted(counts) if counts[symbol])
