"""Tests of compositions and cells: SMACT, overlapping atoms, sensible cells."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure

CLOSEST = 0.5
"""Minimum distance of two atoms, Å."""
SMALLEST = 0.1
"""Minimum volume of a cell, Å^3."""


def is_sensible(crystal: Structure) -> bool:
    """Return whether lengths lie in [0.5, 1000] Å and angles in [10, 170] degrees."""
    lattice = crystal.lattice
    return all(0.5 <= x <= 1000 for x in lattice.abc) and all(10 <= x <= 170 for x in lattice.angles)


def overlap(crystal: Structure) -> str:
    """Return which distance of two atoms is too small; "" if none is."""
    import numpy as np

    distances = crystal.distance_matrix  # [n_atoms, n_atoms], Å
    closest = (distances + np.diag([np.inf] * len(crystal))).min()
    return f"two atoms are {closest:.2f} Å apart" if closest < CLOSEST else ""


@cache
def passes_smact(counts: tuple[tuple[str, float], ...]) -> bool:
    """Return whether a composition passes the SMACT test, with the oxidation states of SMACT's 2014 list.

    The result is that of `smact.screening.smact_validity(..., oxidation_states_set="smact14")`, which tries
    every combination of oxidation states. If all positive elements are less electronegative than all negative
    ones, an electronegativity separates them: try each, and collect the possible sums of charges.

    Args:
        counts: element symbols and their whole numbers of atoms.
    """
    symbols = [symbol for symbol, _ in counts]
    if len(symbols) == 1 or all(symbol in _metals() for symbol in symbols):
        return True
    whole = [round(count) for _, count in counts]
    divisor = math.gcd(*whole)
    elements = [_oxidation(symbol) for symbol in symbols]
    if any(not states or x is None for states, x in elements):
        return False
    for limit in (-math.inf, *sorted({x for _, x in elements if x is not None})):
        sums = {0}
        for (states, x), count in zip(elements, whole, strict=True):
            positive = x is not None and x <= limit
            charges = [q * (count // divisor) for q in states if q == 0 or (q > 0) == positive]
            sums = {total + charge for total in sums for charge in charges}
        if 0 in sums:
            return True
    return False


@cache
def _metals() -> frozenset[str]:
    from smact import metals

    return frozenset(metals)


@cache
def _oxidation(symbol: str) -> tuple[tuple[int, ...], float | None]:
    """Return oxidation states (SMACT's list of 2014) and Pauling electronegativity of an element."""
    from smact import Element

    element = Element(symbol)
    return tuple(element.oxidation_states_smact14 or ()), element.pauling_eneg
