"""Numbers of CIF texts, character by character, within bounds.

A number has four decimals, 4.2005, and counts in units of the last, 42005. Bounds are a pair (lowest,
highest) of such units; every choice of `next_characters` can be completed within them. The bounds of cell
parameters leave values for the parameters after them; those of the volume follow from the cell up to
rounding.

Equations: P = a b c, V = P f, f^2 = 1 + 2 cos(alpha) cos(beta) cos(gamma) - cos^2(alpha) - cos^2(beta)
- cos^2(gamma) = sin^2(alpha) sin^2(beta) - (cos(gamma) - cos(alpha) cos(beta))^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import acos, asin, ceil, cos, degrees, floor, radians, sin, sqrt

from crystallm.crystallography import cells
from crystallm.crystallography.space_groups import PARAMETERS, SpaceGroup

UNITS = 10_000
"""Units of the fourth decimal in 1."""
END = "\n"
"""What `next_characters` returns after a complete number."""
_SLACK = 1e-3
"""Share of the least volume that is reserved for each angle still to come, so that a number of four decimals
always fits."""


@dataclass(frozen=True)
class CellLimits:
    """Bounds on generated cells.

    Attributes:
        length: lowest and highest edge, Å.
        angle: lowest and highest angle, degrees.
        volume: lowest and highest volume per atom, Å^3.
        flatness: lowest f, the volume over the product of the edges.
    """

    length: tuple[float, float]
    angle: tuple[float, float]
    volume: tuple[float, float]
    flatness: float


PHYSICAL = CellLimits(length=(1.0, 200.0), angle=(30.0, 150.0), volume=(2.5, 700.0), flatness=0.1)
"""Generous for known crystals. 3,200 standard texts of the validation splits of MP-20, MPTS-52, Perov-5 and
Carbon-24 hold edges of 1.53 to 109.0 Å, angles of 59.98 to 134.9 degrees, 5.42 to 603.5 Å^3 per atom and f
from 0.708; among 47,335 structures of open collections 5 have less than 2.5 Å^3 per atom (their
cells were never measured) and 1 has more than 700. All this is within what the paper's checks accept."""
SENSIBLE = CellLimits(length=(0.5, 999.9999), angle=(10.0, 170.0), volume=(0.0, 999_000.0), flatness=0.01)
"""Without regard to atoms: what the paper's checks accept ([0.5, 1000] Å, [10, 170] degrees), with a volume
of at most six digits, which readers of texts can parse."""


def next_characters(prefix: str, lowest: int, highest: int) -> str:
    """Return the characters that may follow a prefix of a number.

    Args:
        prefix: characters so far, `12.3`.
        lowest: allowed number, in units of the fourth decimal, not negative.

    Returns:
        Digits, a point, or END; empty only if no number within the bounds has this prefix.
    """
    whole, point, decimals = prefix.partition(".")
    if point:
        if len(decimals) == 4:
            return END
        base, size = 10 * int(whole + decimals), 10 ** (3 - len(decimals))
        return "".join(
            str(d) for d in range(10) if (base + d) * size <= highest and (base + d + 1) * size > lowest
        )
    if whole == "0":
        return "."
    longest = len(str(highest // UNITS))
    characters = []
    for digit in "0123456789":
        value, more = int(whole + digit), longest - len(whole) - 1
        if whole + digit == "0":
            more = 0  # a number that begins with 0 is less than 1
        sizes = [UNITS * 10**n for n in range(more + 1)]
        if any(value * size <= highest and (value + 1) * size > lowest for size in sizes):
            characters.append(digit)
    if whole and int(whole) * UNITS <= highest and (int(whole) + 1) * UNITS > lowest:
        characters.append(".")
    return "".join(characters)


def parameter_limit(
    group: SpaceGroup, n_atoms: int, before: Mapping[str, float], name: str, limits: CellLimits
) -> tuple[int, int]:
    """Return the bounds of the next free cell parameter, such that values are left for those after it.

    Args:
        before: the parameters before it, Å and degrees.
        name: of the parameter, one of `group.free_cell`.
    """
    angles = [before.get(p, 90.0) for p in PARAMETERS[3:]]
    # The largest f that the group allows: its angles are free, 90 degrees, or 90, 90 and 120 degrees.
    most = sin(radians(group.complete_cell({"a": 1.0})[5]))
    least_volume = limits.volume[0] * n_atoms
    if name in "abc":
        lowest = least_volume * (1 + 3 * _SLACK) / most
        highest = limits.volume[1] * n_atoms / most
        powers = _powers(group)
        for p, value in before.items():
            lowest, highest = lowest / value ** powers[p], highest / value ** powers[p]
        for p in "abc":
            if p in powers and p not in before and p != name:
                lowest /= limits.length[1] ** powers[p]
                highest /= limits.length[0] ** powers[p]
        root = 1 / powers[name]
        return _whole_units(max(limits.length[0], lowest**root), min(limits.length[1], highest**root))
    edges = group.complete_cell({p: before[p] for p in "abc" if p in before})[:3]
    least = max(least_volume / (edges[0] * edges[1] * edges[2]), limits.flatness)
    if name == "gamma":
        u, v = cos(radians(angles[0])), cos(radians(angles[1]))
        width = sqrt(max(0.0, (1 - u * u) * (1 - v * v) - least * least))
        low = degrees(acos(min(1.0, u * v + width)))
        high = degrees(acos(max(-1.0, u * v - width)))
    else:
        least *= 1 + _SLACK * (2 if name == "alpha" else 1)
        least /= 1.0 if name == "alpha" else sin(radians(angles[0]))
        low = degrees(asin(min(1.0, least)))
        high = 180.0 - low
    return _whole_units(max(limits.angle[0], low), min(limits.angle[1], high))


def volume_limit(group: SpaceGroup, cell: Sequence[float]) -> tuple[int, int]:
    """Return the bounds of the volume of a cell that is known to four decimals.

    The published texts print the volume of the cell before its parameters were rounded. So it lies within the
    volumes of all cells that round to the printed parameters; those that the group fixes are exact.

    Args:
        cell: a, b, c (Å), alpha, beta, gamma (degrees) as printed.
    """
    free = [p for p in PARAMETERS if p in group.free_cell]
    half = 0.501 / UNITS  # the original rounds twice, first to eight decimals
    values = dict(zip(PARAMETERS, cell, strict=True))
    volumes = []
    for signs in product((-half, half), repeat=len(free)):
        moved = group.complete_cell({p: values[p] + sign for p, sign in zip(free, signs, strict=True)})
        volumes.append(cells.volume(moved))
    return max(0, round(min(volumes) * UNITS)), round(max(volumes) * UNITS)


def _powers(group: SpaceGroup) -> dict[str, int]:
    """Return the power of each free edge in the product of the three."""
    free = [p for p in "abc" if p in group.free_cell]
    return {p: 4 - len(free) if p == "a" else 1 for p in free}


def _whole_units(low: float, high: float) -> tuple[int, int]:
    return ceil(low * UNITS - 1e-6), floor(high * UNITS + 1e-6)
