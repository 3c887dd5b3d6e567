"""Atom rows of CIF texts: which row may follow so that the composition can be filled.

Rows are sorted by rising electronegativity of their element, then by falling multiplicity, then by x, y, z.
Elements of equal electronegativity share a block in which their rows mix. A row prints its multiplicity, not
its Wyckoff position, which follows from its coordinates, and so do the positions without free coordinates
that are left. A row is allowed only if the rest can be filled by rows that follow it in this order:

    multiplicity falls      all open positions of smaller multiplicity
    multiplicity stays      those with a point after the row; free ones as far as there is room
    later blocks            all that are open then
"""

from __future__ import annotations

from collections import Counter
from functools import cache, lru_cache
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from crystallm.crystallography import elements, space_groups
from crystallm.crystallography.wyckoff_assignment import fits, is_sum, position_counts, uses
from crystallm.grammar.cif.coordinates import Placement
from crystallm.grammar.cif.wyckoff_grid import FREE, GRID, WyckoffSites, sites

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crystallm.crystallography.space_groups import Floats
    from crystallm.grammar.cif.wyckoff_grid import Rank

    Numbers = tuple[tuple[int, int], ...]

_FEW = 100
"""Atoms for which every line is long enough."""
_SPARE = 12
"""Orbits on lines that are counted one by one if a cell has more atoms than the lines surely hold."""


@lru_cache(maxsize=1 << 18)
def _fills(
    now: tuple[int, ...],
    free_now: tuple[int, ...],
    fixed_now: Numbers,
    *,
    later: tuple[int, ...],
    free: tuple[int, ...],
    fixed: Numbers,
) -> bool:
    """Return whether counts can be filled of which some may use only a part of the positions.

    Args:
        now: counts, one per element, sorted.
        free_now: multiplicities of positions with free coordinates that these counts may use.
        fixed_now: positions without that they may use; the same multiplicities as in `fixed`.
        later: other counts, sorted.
        free: multiplicities of positions with free coordinates that those may use.
    """
    if not now:
        return fits(free, fixed, later)
    count, rest = now[-1], now[:-1]
    for used in uses(count, fixed_now):
        left = count - sum(n * m for n, (m, _) in zip(used, fixed_now, strict=True))
        if left < 0 or not is_sum(left, free_now):
            continue
        spent_now = tuple((m, n - u) for (m, n), u in zip(fixed_now, used, strict=True))
        spent = tuple((m, n - u) for (m, n), u in zip(fixed, used, strict=True))
        if _fills(rest, free_now, spent_now, later=later, free=free, fixed=spent):
            return True
    return False


def blocks(symbols: Iterable[str]) -> list[list[str]]:
    """Return elements by rising electronegativity, those of equal value together (NaN for He, Ne and Ar)."""
    groups: list[list[str]] = []
    before: float | None = None
    for symbol in elements.electronegativity_order(symbols):
        value = elements.get(symbol).electronegativity
        value = float("inf") if isnan(value) else value
        if value != before:
            groups.append([])
        groups[-1].append(symbol)
        before = value
    return groups


@cache
def multiplicities(number: int) -> tuple[int, ...]:
    """Return the multiplicities of the positions of a group, ascending."""
    return tuple(sorted({w.multiplicity for w in space_groups.get(number).wyckoff}))


class RowFilling:
    """The rows of one crystal as they are generated."""

    def __init__(self, number: int, counts: Mapping[str, int]) -> None:
        self.number = number
        self.left = dict(counts)
        self._blocks = blocks(counts)
        self._open = [i for i, w in enumerate(space_groups.get(number).wyckoff) if not w.free]
        self._atoms: dict[int, Floats] = {}  # by position with free coordinates, [n, 3] grid steps
        self._n_placed: dict[int, int] = {}  # orbits there
        self._multiplicity: int | None = None  # of the row before, in the same block
        self._after: Rank | None = None  # its coordinates
        self._rows: dict[str, dict[int, Placement]] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the composition is filled."""
        return not self._blocks

    def rows(self) -> dict[str, dict[int, Placement]]:
        """Return the allowed next rows: by element and multiplicity, the coordinates to generate."""
        if self._rows is None:
            self._rows = {}
            for symbol in self._blocks[0] if self._blocks else ():
                allowed = {
                    m: p for m in multiplicities(self.number) if (p := self._row(symbol, m)) is not None
                }
                if allowed:
                    self._rows[symbol] = allowed
        return self._rows

    def renew(self) -> None:
        """Discard the coordinates of the next row."""
        self._rows = None

    def atoms(self, placement: Placement) -> Floats:
        """Return all atoms [multiplicity, 3] of an orbit with all coordinates, grid steps."""
        group = space_groups.get(self.number)
        images = group.rotations @ placement.site()[1] + GRID * group.translations  # [n_ops, 3]
        return np.asarray(np.unique(np.round(images % GRID, 3) % GRID, axis=0), dtype=np.float64)

    def take(self, symbol: str, multiplicity: int, placement: Placement) -> None:
        """Add a row with all coordinates."""
        index, _ = placement.site()
        if index in self._open:
            self._open.remove(index)
        else:
            self._n_placed[index] = self._n_placed.get(index, 0) + 1
            known = self._atoms.get(index)
            own = self.atoms(placement)
            self._atoms[index] = own if known is None else np.vstack([known, own])
        self._multiplicity, self._after = multiplicity, placement.rank
        self.left[symbol] -= multiplicity
        if not any(self.left[s] for s in self._blocks[0]):
            del self._blocks[0]
            self._multiplicity = self._after = None
        self._rows = None

    def _row(self, symbol: str, multiplicity: int) -> Placement | None:
        """Return the coordinates of a next row, None if it is not allowed."""
        before = self._multiplicity
        if multiplicity > self.left[symbol] or (before is not None and multiplicity > before):
            return None
        after = self._after if multiplicity == before else None
        here = sites(self.number, multiplicity)
        limits = self._limits(symbol, here)
        if not limits:
            return None
        placement = Placement(here, limits, after, self._atoms)
        # Without an order to keep there is always a point: most of the values of a free coordinate are good.
        is_easy = after is None and None in limits.values() and sum(self.left.values()) < _FEW
        return placement if is_easy or placement.is_possible() else None

    def _limits(self, symbol: str, here: WyckoffSites) -> dict[int, Rank | None]:
        """Return, for each position open to a next row, the last rank such that the rest can be filled."""
        m = here.multiplicity
        counts = {s: n - (m if s == symbol else 0) for s, n in self.left.items()}
        now = tuple(sorted(counts[s] for s in self._blocks[0] if counts[s]))
        later = tuple(sorted(counts[s] for block in self._blocks[1:] for s in block))
        candidates = [i for i in here.fixed if i in self._open] + [FREE] * here.has_free
        supply = self._supply(sum(now) + sum(later))
        limits: dict[int, Rank | None] = {}
        for index in candidates:
            is_possible, limit = self._limit(here, index, now, later, supply)
            if is_possible:
                limits[index] = limit
        return limits

    def _supply(self, n_atoms: int) -> tuple[tuple[int, ...], dict[int, int]]:
        """Return multiplicities of positions with free coordinates that hold all these atoms, and others.

        The others, lines in a cell of hundreds of atoms, surely hold the number of orbits that is returned.
        """
        unlimited, limited = [], {}
        for multiplicity in position_counts(self.number)[0]:
            n_rooms = sites(self.number, multiplicity).n_rooms(self._n_placed)
            # One less than there are, because the next row may take one.
            if n_rooms is None or n_atoms // multiplicity < n_rooms:
                unlimited.append(multiplicity)
            else:
                limited[multiplicity] = max(0, min(n_rooms - 1, _SPARE))
        return tuple(unlimited), limited

    def _limit(
        self,
        here: WyckoffSites,
        index: int,
        now: tuple[int, ...],
        later: tuple[int, ...],
        supply: tuple[tuple[int, ...], dict[int, int]],
    ) -> tuple[bool, Rank | None]:
        """Return whether a row may take a position, and the last rank that it may have there (None: any)."""
        m = here.multiplicity
        group = space_groups.get(self.number)
        free, limited = supply
        lower = tuple(f for f in free if f < m)
        fixed = Counter(limited)
        fixed.update(group.wyckoff[i].multiplicity for i in self._open if i != index)
        numbers = tuple(sorted(fixed.items()))

        def fills(n_after: int, free_now: tuple[int, ...] = lower) -> bool:
            """Return whether n positions of this multiplicity after the row suffice."""
            usable = tuple((k, n if k < m else n_after if k == m else 0) for k, n in numbers)
            return _fills(now, free_now, usable, later=later, free=free, fixed=numbers)

        if fills(0):
            return True, None
        n_rows = sum(now) // m
        if not n_rows:
            return False, None
        ends = sorted((here.highest[i] for i in here.fixed if i in self._open and i != index), reverse=True)
        best: Rank | None = None
        # Continue without free coordinates; with any number of orbits that have them; with n such orbits.
        for n_free in (0, *([n_rows] if m in free else range(1, limited.get(m, 0) + 1))):
            usable, more = ((*lower, m), 0) if n_free and m in free else (lower, n_free)
            n_after = next((n for n in range(len(ends) + 1) if fills(n + more, usable)), None)
            if n_after is None:
                continue
            bounds = [_before(ends[n_after - 1])] if n_after else []
            if n_free:
                room = here.last_room(n_free, self._atoms)
                if room is None:
                    continue
                bounds.append(room)
            best = min(bounds) if best is None else max(best, min(bounds))
        return best is not None, best


def _before(rank: Rank) -> Rank:
    """Return the last rank before a point, however the point may be printed."""
    x, y, z = rank
    return (x, y, z - 1) if z else (x, y, -2)  # below -1, which is 0 with a minus sign
