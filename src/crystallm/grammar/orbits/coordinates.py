"""Which digits of a coordinate keep an orbit on points of its own, as many as its multiplicity.

Two points coincide if they do in the encoded digits: closer than half a step along each axis. Arithmetic is
in ticks, the 24,000 parts of a cell edge, of which steps and the offsets of symmetry operators are whole
multiples.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.geometry.compiled import Compiled
from crystallm.orbits import description

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Floats, Ints

    Row = tuple[tuple[int, ...], int, float]

STEP = space_groups.UNIT  # ticks
EDGE = STEP * description.STEPS
HALF_EDGE = EDGE // 2
NEAR = STEP / 2
CROWD = 4
"""Orbits on one Wyckoff position from which they may take all ten last digits of another one. Along its line
of values an orbit meets another once for each direction, and itself once, within ten steps."""
DIGITS = tuple(range(10))


@lru_cache(maxsize=100_000)
def keeping(number: int, index: int, values: tuple[int, ...]) -> tuple[int, ...]:
    """Return the last digits with which an orbit keeps its multiplicity.

    Args:
        number: space group.
        index: Wyckoff position.
        values: coordinates so far, the last with a last digit of 0; those to come are taken as generic.
    """
    excluded: set[int] = set()
    for pair in _pairs(number, index, len(values)):
        excluded.update(_coinciding(pair, values))
    return tuple(d for d in DIGITS if d not in excluded) if excluded else DIGITS


def _coinciding(pair: tuple[Row, ...], values: tuple[int, ...]) -> Sequence[int]:
    """Return the last digits with which a pair of points coincides."""
    first = values[-1]
    digits: Sequence[int] = DIGITS
    for rates, last, rest in pair:
        start = rest + last * first
        for rate, value in zip(rates, values, strict=False):
            start += rate * value
        if _beyond(start, last):
            return ()
        digits = [d for d in digits if not NEAR <= (start + last * d) % EDGE <= EDGE - NEAR]
    return digits


def _beyond(start: float, last: int) -> bool:
    """Return whether no digit makes a difference vanish that is `start` with a digit of 0."""
    span = 9 * abs(last)
    return 2 * NEAR + span < (start + NEAR) % EDGE < EDGE - span


@cache
def _pairs(number: int, index: int, n_known: int) -> tuple[tuple[Row, ...], ...]:
    """Return the differences of the first point from others that vanish for some `n_known` first values."""
    matrices, shifts = space_groups.get(number).orbit_maps[index]
    generic = np.array(space_groups.GENERIC[n_known : matrices.shape[2]])
    pairs: dict[tuple[Row, ...], None] = {}  # each once, in order
    for matrix, shift in zip(matrices[1:] - matrices[0], shifts[1:] - shifts[0], strict=True):
        rests = np.round((shift + matrix[:, n_known:] @ generic) * EDGE, 3).tolist()
        rows: list[Row] = []
        for rates, rest in zip((matrix[:, :n_known] * STEP).astype(int).tolist(), rests, strict=True):
            if any(rates):
                rows.append((tuple(rates[:-1]), rates[-1], rest))
            elif NEAR <= rest % EDGE <= EDGE - NEAR:
                break  # apart, whatever the values
        else:
            rows.sort(key=lambda row: row[1] != 0)  # those without a digit decide soonest
            pairs[tuple(rows)] = None
    return tuple(pairs)


@cache
def _maps(number: int, index: int) -> tuple[Ints, Ints]:
    """Return `SpaceGroup.orbit_maps` of steps onto ticks."""
    matrices, shifts = space_groups.get(number).orbit_maps[index]
    return np.rint(matrices * STEP).astype(np.int64), np.rint(shifts * EDGE).astype(np.int64)


def apart(
    number: int, index: int, values: Sequence[int], kept: tuple[int, ...], others: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    """Return the last digits with which an orbit avoids the points of others on the same Wyckoff position.

    Args:
        number: space group.
        index: Wyckoff position.
        values: all coordinates of the orbit, the last with a last digit of 0.
        others: all coordinates of each of the others.
    """
    met = np.zeros(10, dtype=np.int64)
    _find_digits(*_maps(number, index), np.array(values), np.array(others), met)
    excluded = met.tolist()
    return tuple(d for d in kept if not excluded[d])


def _mark_digits(matrices: Any, shifts: Any, values: Any, others: Any, met: Any) -> None:
    """Mark the last digits [10] with which an orbit meets one of the others; arguments as for `apart`."""
    n = len(values)
    for other in range(len(others)):
        x, y, z = shifts[0][0], shifts[0][1], shifts[0][2]
        for k in range(n):
            x += matrices[0][0][k] * others[other][k]
            y += matrices[0][1][k] * others[other][k]
            z += matrices[0][2][k] * others[other][k]
        for image in range(len(shifts)):
            dx, dy, dz = shifts[image][0] - x, shifts[image][1] - y, shifts[image][2] - z
            for k in range(n):
                dx += matrices[image][0][k] * values[k]
                dy += matrices[image][1][k] * values[k]
                dz += matrices[image][2][k] * values[k]
            p, q, r = matrices[image][0][n - 1], matrices[image][1][n - 1], matrices[image][2][n - 1]
            for d in range(10):
                if (
                    abs((dx + d * p + HALF_EDGE) % EDGE - HALF_EDGE) < NEAR
                    and abs((dy + d * q + HALF_EDGE) % EDGE - HALF_EDGE) < NEAR
                    and abs((dz + d * r + HALF_EDGE) % EDGE - HALF_EDGE) < NEAR
                ):
                    met[d] = 1


_find_digits = Compiled(_mark_digits)


def full_tens(
    number: int, index: int, values: tuple[int, ...], others: Sequence[Sequence[int]]
) -> frozenset[int]:
    """Return the tens of the last coordinate whose ten values all put an orbit on other points or its own.

    Args:
        number: space group.
        index: Wyckoff position.
        values: all coordinates of the orbit but the last.
        others: all coordinates of each of the others on the same position.
    """
    matrices, shifts = _maps(number, index)
    points = np.array(others) @ matrices[0].T + shifts[0]  # [n_others, 3] ticks
    known = matrices[:, :, :-1] @ np.array(values, dtype=np.int64) + shifts  # [multiplicity, 3]
    starts = (known[:, None] - points + EDGE // 2) % EDGE - EDGE // 2  # [multiplicity, n_others, 3]
    rates = matrices[:, :, -1]  # [multiplicity, 3]
    on_line = ((np.abs(starts) < NEAR) | (rates != 0)[:, None]).all(axis=2)
    met: set[int] = set()
    for image, other in np.argwhere(on_line).tolist():
        axis = int(np.abs(rates[image]).argmax())
        rate = int(rates[image, axis])
        turns = abs(rate) // STEP  # values of the coordinate that meet, where the other axes agree
        first = round(-int(starts[image, other, axis]) / rate)
        met.update(
            (first + turn * description.STEPS // turns) % description.STEPS // 10 for turn in range(turns)
        )
    return frozenset(
        ten
        for ten in met
        if not (kept := keeping(number, index, (*values, 10 * ten)))
        or not apart(number, index, (*values, 10 * ten), kept, others)
    )


@cache
def fixed_points(number: int, index: int) -> Floats:
    """Return the points [multiplicity, 3] of a position without free coordinates, fractions in [0, 1)."""
    _, shifts = space_groups.get(number).orbit_maps[index]
    return np.asarray(shifts % 1.0 % 1.0)
