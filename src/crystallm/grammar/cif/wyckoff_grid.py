"""Wyckoff positions on the grid of printed coordinates: which values put an atom on a position.

The points of a Wyckoff position are a set of subspaces, one per operator. A coordinate of a subspace is free,
or follows from the free ones before it,

    x_i = sum_j k_ij x_j + o_i   (mod 1),

and all values are on a grid of 10,000 steps. A printed value v stands for [v - 1/2, v + 1/2], so a dependent
coordinate may be printed as any v with |v - x_i| < (1 + sum_j |k_ij|) / 2. A printed point is not allowed
where one of its images comes within the rounding of itself (the position has lower multiplicity there) or of
an earlier atom.

A rank orders printed values: the value in grid steps, and -1 for `-0.0000`, which the published texts have
where a coordinate is a rounding error below zero, and sort before 0.0000.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crystallm.crystallography import space_groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystallm.crystallography.space_groups import Floats, Ints, SpaceGroup

    Rank = tuple[int, ...]

GRID = 10_000
"""Steps of a printed coordinate in 1."""
FREE = -1
"""Index of all positions with free coordinates together; those without have their own index."""
_NEAR = 9.5
"""Atoms whose coordinates all differ by no more steps are one atom. Less would distinguish them, but the
parameter of a position such as (x, 2x, z) is known only to some steps from the printed values, and a reader
that moves the atom onto its position must not meet another. No known crystal is excluded: the symmetry search
of the published texts merges atoms closer than 0.1 Å, which is more than this in any cell up to 100 Å."""
_STRICT = 1e-6


@dataclass(frozen=True, eq=False)
class WyckoffSubspace:
    """The points of one Wyckoff position that one operator generates.

    Attributes:
        index: of the Wyckoff position.
        free: axes whose coordinates are free, rising.
        slopes: [3, 3] k_ij; a free axis has 1 on its diagonal, others depend on free axes before them.
        offset: [3] o_i, grid steps; 0 for free axes.
        linear: [n, 3, n_free] and
        constant: [n, 3], grid steps: an image minus the point, a linear form of the free coordinates, for
            each operator that does not keep the whole subspace.
        n_on_line: points of one orbit that lie on this subspace.
    """

    index: int
    free: tuple[int, ...]
    slopes: Floats
    offset: Floats
    linear: Floats
    constant: Floats
    n_on_line: int

    @cached_property
    def forms(self) -> tuple[tuple[float, tuple[tuple[int, float], ...], float], ...]:
        """For each axis o_i, the pairs (j, k_ij), and the reach of printed values around x_i."""
        rows = []
        for i in range(3):
            terms = tuple((j, float(self.slopes[i, j])) for j in range(3) if self.slopes[i, j])
            rows.append((float(self.offset[i]), terms, 0.5 + 0.5 * sum(abs(k) for _, k in terms)))
        return tuple(rows)

    @cached_property
    def first_good(self) -> npt.NDArray[np.bool_]:
        """[GRID] values of the first free coordinate for which the multiplicity can still be kept."""
        good = np.ones(GRID, dtype=np.bool_)
        good[self.special(0, ())] = False
        good.flags.writeable = False
        return good

    @cached_property
    def n_good(self) -> int:
        """Number of these values."""
        return int(self.first_good.sum())

    @property
    def width(self) -> int:
        """Values of the first free coordinate that an orbit may block for others, plus one; 1 on a plane."""
        return 1 + self.n_on_line * (2 * int(_NEAR) + 1) if len(self.free) == 1 else 1

    @cached_property
    def leading(self) -> tuple[int, ...]:
        """Printed values of the constant coordinates before the first free one."""
        return tuple(round(float(v)) % GRID for v in self.offset[: self.free[0] if self.free else 3])

    @cached_property
    def _operators(self) -> tuple[tuple[Floats, Floats, Floats, Floats, int, int], ...]:
        """For each free coordinate, the operators whose condition on a point ends with it."""
        groups = []
        for j in range(len(self.free)):
            chosen = self.linear[:, :, j].any(axis=1) & ~self.linear[:, :, j + 1 :].any(axis=(1, 2))
            linear, constant = self.linear[chosen][:, :, : j + 1], self.constant[chosen]
            lead = np.abs(linear[:, :, j]).argmax(axis=1)
            rows = np.arange(len(lead))
            sign = np.sign(linear[rows, lead, j])
            linear, constant = linear * sign[:, None, None], constant * sign[:, None]
            table = np.unique(
                np.round(np.hstack([linear.reshape(-1, 3 * (j + 1)), constant % GRID, lead[:, None]]), 6),
                axis=0,
            )
            linear = table[:, : 3 * (j + 1)].reshape(-1, 3, j + 1)
            constant, lead = table[:, 3 * (j + 1) : -1], table[:, -1].astype(np.int64)
            steepness = linear[np.arange(len(lead)), lead, j]
            turns = int(np.ceil(steepness.max())) if len(lead) else 0
            width = int(np.ceil(_NEAR / steepness.min())) if len(lead) else 0
            groups.append((linear, constant, lead, steepness, turns, width))
        return tuple(groups)

    def value(self, axis: int, chosen: Sequence[int]) -> float:
        """Return x_i of a dependent axis for the coordinates before it, grid steps, not wrapped."""
        offset, terms, _ = self.forms[axis]
        return offset + sum(k * chosen[j] for j, k in terms)

    def printed(self, axis: int, chosen: Sequence[int]) -> tuple[int, ...]:
        """Return the values that a dependent coordinate may be printed as."""
        x, reach = self.value(axis, chosen), self.forms[axis][2] - _STRICT
        first = int(np.ceil(x - reach))
        return tuple(sorted(v % GRID for v in range(first, int(np.floor(x + reach)) + 1)))

    def point(self, chosen: Sequence[int]) -> Floats:
        """Return the point [3] on the subspace with these free coordinates, grid steps."""
        return np.asarray(self.slopes @ np.asarray(chosen, dtype=np.float64) + self.offset, dtype=np.float64)

    def special(self, j: int, before: Sequence[int]) -> Ints:
        """Return the values of the j-th free coordinate that lower the multiplicity, given the others."""
        linear, constant, lead, steepness, turns, width = self._operators[j]
        n = len(lead)
        if not n:
            return np.zeros(0, dtype=np.int64)
        rest = constant + linear[:, :, :j] @ np.asarray(before, dtype=np.float64)  # [n, 3]
        start = -rest[np.arange(n), lead] % GRID  # [n]
        exact = (start[:, None] + GRID * np.arange(-1, turns + 1)) / steepness[:, None]  # [n, turns + 2]
        off = linear[:, None, :, j] * exact[..., None] + rest[:, None]
        off = np.abs(off - GRID * np.rint(off / GRID)).max(axis=-1)
        op, turn = np.nonzero(
            off <= 2 * _NEAR
        )  # the steepest coordinate is 0 there, others may still come near
        values = np.floor(exact[op, turn])[:, None] + np.arange(-width, width + 2)  # [n_hits, window]
        off = linear[op, None, :, j] * values[..., None] + rest[op, None]
        hit = (np.abs(off - GRID * np.rint(off / GRID)) <= _NEAR).all(axis=-1)
        values = values[hit]
        return np.asarray(values[(values >= 0) & (values < GRID)], dtype=np.int64)

    def occupied(self, chosen: Sequence[int], atoms: Floats) -> Ints:
        """Return the values of the last free coordinate that meet atoms [n, 3] of this position."""
        axis = self.free[-1]
        for i in range(axis):
            known = chosen[i] if i in self.free else self.value(i, chosen)
            atoms = atoms[np.abs((atoms[:, i] - known + GRID / 2) % GRID - GRID / 2) <= _NEAR]
        width = int(np.ceil(_NEAR)) + 1
        values = (np.rint(atoms[:, axis])[:, None] + np.arange(-width, width + 1)) % GRID  # [n, window]
        near = np.ones(values.shape, dtype=np.bool_)
        for i in range(axis, 3):
            offset, terms, _ = self.forms[i]
            x = np.full(values.shape, offset)
            for j, k in terms:
                x += k * (values if j == axis else chosen[j])
            near &= np.abs((atoms[:, i, None] - x + GRID / 2) % GRID - GRID / 2) <= _NEAR
        return np.asarray(values[near], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class WyckoffSites:
    """All points of one multiplicity in a group.

    Attributes:
        multiplicity: points of an orbit in the conventional cell.
        spaces: subspaces, those of the positions without free coordinates first.
        fixed: indices of the positions without free coordinates.
        highest: for each of these the rank of its last point in the order of rows.
        has_free: whether a position with free coordinates has this multiplicity.
    """

    multiplicity: int
    spaces: tuple[WyckoffSubspace, ...]
    fixed: tuple[int, ...]
    highest: Mapping[int, Rank]
    has_free: bool

    def last_room(self, n: int, atoms: Mapping[int, Floats]) -> Rank | None:
        """Return the last rank after which n + 1 orbits with free coordinates surely fit; None for none.

        Room is counted along the first free coordinate of a single subspace. On a line each orbit may block
        as many values as it has points there, with their rounding; on a plane it blocks none.
        """
        best: Rank | None = None
        for space in self._by_falling_rank:
            rest = (GRID,) * (2 - len(space.leading))
            if best is not None and best >= (*space.leading, GRID - 1, *rest):
                break
            good, need = space.first_good, (n + 1) * space.width
            if len(space.free) == 1 and space.index in atoms:
                good = good.copy()
                good[space.occupied(space.leading, atoms[space.index])] = False
            values = np.flatnonzero(good)
            if len(values) >= need:
                rank = (*space.leading, int(values[-need]) - 1, *rest)
                best = rank if best is None else max(best, rank)
        return best

    def n_rooms(self, n_placed: Mapping[int, int]) -> int | None:
        """Return how many orbits surely fit on one of the lines; None for a plane, which holds any."""
        free = [space for space in self.spaces if space.free]
        if any(len(space.free) > 1 for space in free):
            return None
        return max((space.n_good // space.width - n_placed.get(space.index, 0) for space in free), default=0)

    @cached_property
    def _by_falling_rank(self) -> tuple[WyckoffSubspace, ...]:
        free = [space for space in self.spaces if space.free]
        return tuple(sorted(free, key=lambda space: (*space.leading, GRID), reverse=True))


@cache
def sites(number: int, multiplicity: int) -> WyckoffSites:
    """Return the sites of a multiplicity in a space group."""
    group = space_groups.get(number)
    spaces: list[WyckoffSubspace] = []
    for index, position in enumerate(group.wyckoff):
        if position.multiplicity == multiplicity:
            spaces += _subspaces(group, index)
    spaces.sort(key=lambda space: len(space.free))
    highest: dict[int, Rank] = {}
    for space in spaces:
        if not space.free:
            highest[space.index] = max(highest.get(space.index, ()), space.leading)
    return WyckoffSites(
        multiplicity=multiplicity,
        spaces=tuple(spaces),
        fixed=tuple(highest),
        highest=highest,
        has_free=any(space.free for space in spaces),
    )


def _subspaces(group: SpaceGroup, index: int) -> list[WyckoffSubspace]:
    position = group.wyckoff[index]
    unit = space_groups.UNIT
    if len(position.free) == 3:
        images = np.hstack([np.eye(3, dtype=np.int64).ravel(), np.zeros(3, dtype=np.int64)])[None]
    else:
        matrix = position.matrix[:, list(position.free)]  # [3, n_free]
        shifts = np.rint(unit * (group.rotations @ position.offset + group.translations)).astype(np.int64)
        linear = (group.rotations @ matrix).reshape(len(shifts), -1)
        images = np.unique(np.hstack([linear, shifts % unit]), axis=0)
    subspaces: dict[tuple[object, ...], WyckoffSubspace] = {}
    for row in images.tolist():
        columns = [row[j : -3 : len(position.free)] for j in range(len(position.free))]
        for free, slopes, offset in _forms(columns, [Fraction(v, unit) for v in row[-3:]]):
            key = (free, *map(tuple, slopes), *offset)
            if key not in subspaces:
                subspaces[key] = _subspace(group, index, free, slopes, offset)
    return list(subspaces.values())


def _forms(
    columns: list[list[int]], shift: list[Fraction]
) -> Iterator[tuple[tuple[int, ...], list[list[Fraction]], list[Fraction]]]:
    """Yield the points sum_j columns_j t_j + shift, t real, as free axes, slopes and offsets."""
    columns = [list(column) for column in columns]
    pivots: list[int] = []
    for axis in range(3):  # integer column operations, until each column begins below the one before it
        done = len(pivots)
        while sum(1 for column in columns[done:] if column[axis]) > 1:
            small = min((c for c in columns[done:] if c[axis]), key=lambda c: abs(c[axis]))
            for column in columns[done:]:
                if column is not small and column[axis]:
                    times = column[axis] // small[axis]
                    column[:] = [a - times * b for a, b in zip(column, small, strict=True)]
        pivot = next((c for c in columns[done:] if c[axis]), None)
        if pivot is not None:
            columns.remove(pivot)
            columns.insert(done, [v if pivot[axis] > 0 else -v for v in pivot])
            pivots.append(axis)
    # A pivot of 2, as in (2t, t), makes two branches: t = x/2 and t = x/2 + 1/2.
    for turns in product(*(range(column[axis]) for column, axis in zip(columns, pivots, strict=True))):
        parameters: list[list[Fraction]] = []  # t_j as [k_0, k_1, k_2, constant] of the free coordinates
        for column, axis, turn in zip(columns, pivots, turns, strict=True):
            form = [Fraction(int(axis == i)) for i in range(3)] + [turn - shift[axis]]
            for other, t in zip(columns, parameters, strict=False):
                form = [a - other[axis] * b for a, b in zip(form, t, strict=True)]
            parameters.append([a / column[axis] for a in form])
        slopes, offset = [], []
        for i in range(3):
            form = [Fraction(0)] * 3 + [shift[i]]
            for column, t in zip(columns, parameters, strict=True):
                form = [a + column[i] * b for a, b in zip(form, t, strict=True)]
            slopes.append(form[:3])
            offset.append(Fraction(0) if i in pivots else form[3] % 1)
        yield tuple(pivots), slopes, offset


def _subspace(
    group: SpaceGroup,
    index: int,
    free: tuple[int, ...],
    slopes: list[list[Fraction]],
    offset: list[Fraction],
) -> WyckoffSubspace:
    k = np.array(slopes, dtype=np.float64)
    o = GRID * np.array(offset, dtype=np.float64)
    move = group.rotations - np.eye(3)
    linear = (move @ k)[:, :, list(free)]  # [n_ops, 3, n_free]
    constant = move @ o + GRID * group.translations  # [n_ops, 3]
    n_on_line = 1
    if len(free) == 1:
        # A point of the line, its images, and the points of the line with their first free coordinate.
        axis = free[0]
        point = k[:, axis] * 1234.5678 + o
        images = (point + linear[:, :, 0] * 1234.5678 + constant) % GRID
        off = images - (k[:, axis] * images[:, axis, None] + o)
        on = np.abs((off + GRID / 2) % GRID - GRID / 2).max(axis=1) < 1e-3
        n_on_line = max(1, len(np.unique(np.round(images[on] % GRID, 3), axis=0)))
    moves = linear.any(axis=(1, 2))
    return WyckoffSubspace(index, free, k, o, linear[moves], constant[moves], n_on_line)
