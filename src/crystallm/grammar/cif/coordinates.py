"""The coordinates of an atom row, digit by digit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crystallm.grammar.cif.wyckoff_grid import FREE, GRID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.crystallography.space_groups import Floats
    from crystallm.grammar.cif.wyckoff_grid import WyckoffSites, WyckoffSubspace

    Rank = tuple[int, ...]
    Column = npt.NDArray[np.bool_] | tuple[int, ...]


class Placement:
    """The point of an orbit, coordinate by coordinate.

    Args:
        limits: for each allowed position (FREE: all with free coordinates) the last rank that the point may
            have, None for any.
        after: the rank that the point must follow, None for any.
        atoms: by index of the position with free coordinates, all its atoms so far [n, 3], grid steps.
    """

    def __init__(
        self,
        sites: WyckoffSites,
        limits: Mapping[int, Rank | None],
        after: Rank | None,
        atoms: Mapping[int, Floats],
    ) -> None:
        self._limits = limits
        self._after = after
        self._atoms = atoms
        self._alive = [s for s in sites.spaces if (FREE if s.free else s.index) in limits]
        self._options: list[tuple[WyckoffSubspace, Column, bool]] | None = None
        self.rank: Rank = ()

    def mask(self) -> tuple[npt.NDArray[np.bool_], bool]:
        """Return the allowed values [GRID] of the next coordinate, and whether `-0.0000` is allowed."""
        mask, negative = np.zeros(GRID, dtype=np.bool_), False
        for _, column, minus in self._columns():
            if isinstance(column, tuple):
                for value in column:
                    mask[value] = True
            else:
                mask |= column
            negative |= minus
        return mask, negative

    def is_possible(self) -> bool:
        """Return whether any value is allowed next."""
        return any(minus or _any(column) for _, column, minus in self._columns())

    def take(self, rank: int) -> None:
        """Take an allowed coordinate."""
        value = max(rank, 0)
        self._alive = [
            space
            for space, column, minus in self._columns()
            if (minus if rank < 0 else value in column if isinstance(column, tuple) else column[value])
        ]
        self.rank = (*self.rank, rank)
        self._options = None

    def site(self) -> tuple[int, Floats]:
        """Return the index of the position and the exact point [3] on it, grid steps."""
        space = self._alive[0]
        return space.index, space.point([max(rank, 0) for rank in self.rank])

    def _columns(self) -> list[tuple[WyckoffSubspace, Column, bool]]:
        if self._options is None:
            self._options = [(space, *self._bounded(space, self.rank)) for space in self._alive]
        return self._options

    def _column(self, space: WyckoffSubspace, rank: Rank) -> Column:
        """Return the values of the next coordinate of a subspace, regardless of order."""
        axis = len(rank)
        chosen = [max(r, 0) for r in rank]
        if axis not in space.free:
            return space.printed(axis, chosen)
        j, last = space.free.index(axis), axis == space.free[-1]
        placed = self._atoms.get(space.index) if last else None
        if j == 0:
            if placed is None:
                return space.first_good
            good = space.first_good.copy()
        else:
            good = np.ones(GRID, dtype=np.bool_)
            good[space.special(j, [chosen[i] for i in space.free[:j]])] = False
        if placed is not None:
            good[space.occupied(chosen, placed)] = False
        return good

    def _bounded(self, space: WyckoffSubspace, rank: Rank) -> tuple[Column, bool]:
        """Return the values of the next coordinate that keep the order and leave values for the others."""
        axis = len(rank)
        column = self._column(space, rank)
        zero = 0 in column if isinstance(column, tuple) else bool(column[0])
        after, limit = self._after, self._limits[space.index if not space.free else FREE]
        low = after[axis] if after is not None and rank == after[:axis] else None
        high = limit[axis] if limit is not None and rank == limit[:axis] else None
        if low is None and high is None:
            return column, zero
        edges = {v: self._leads_on(space, (*rank, v), v == low) for v in (-1, low, high) if v is not None}
        least = -1 if low is None else low
        most = GRID if high is None else high
        minus = zero and least == -1 and most >= -1 and edges[-1]
        if isinstance(column, tuple):
            return tuple(v for v in column if least <= v <= most and edges.get(v, True)), minus
        column = column.copy()
        column[: max(least, 0)] = False
        column[max(most + 1, 0) :] = False
        for value, leads_on in edges.items():
            if 0 <= value < GRID and not leads_on:
                column[value] = False
        return column, minus

    def _leads_on(self, space: WyckoffSubspace, rank: Rank, is_low: bool) -> bool:
        """Return whether a coordinate at the edge of the order leaves values for those after it."""
        if len(rank) == 3:
            return not is_low  # a point follows the one before it, and may be at the limit itself
        if rank[-1] >= GRID or rank[-1] < -1:
            return False
        # -1 and values at neither edge are checked too: it is cheap and never wrong.
        known = self._column(space, rank[:-1])
        value = max(rank[-1], 0)
        if not (value in known if isinstance(known, tuple) else known[value]):
            return False
        column, minus = self._bounded(space, rank)
        return minus or _any(column)


def _any(column: Column) -> bool:
    return bool(column) if isinstance(column, tuple) else bool(column.any())
