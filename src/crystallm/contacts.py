"""Where atoms stand: closer than crystals allow, with bonds that chemistry does not know, in which symmetry.

Knows points, cells and lengths of bonds; refuses to know tokens and structures. Needs numpy; asks spglib and
looks at bonds where the libraries for it are there.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm import bonds, elements
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.spacegroups import Bools, Floats, Ints

SHARE = 0.68
"""Smallest distance of two atoms as a share of the expected length of their bond, from which on the paper's
judge calls it reasonable. Of 1,492 crystals of the training corpus 0.6 % have a shorter one; the median of
the shortest is 0.93."""

SYMPREC = 0.1
"""Å; with it `validity` asks spglib which group a crystal has."""

VOLUMES = (4.0, 300.0)
"""Least and largest volume per atom, Å^3. The least of the same crystals is 4.4; 0.1 % have more than 275."""

_SHIFTS = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))  # (27, 3); the 14th is no shift
_OTHER_SHIFTS = np.delete(_SHIFTS, 13, axis=0)


@cache
def bond_length(one: str, other: str) -> float:
    """Expected length of a bond, Å; 0 where none is known."""
    try:
        return bonds.expected_length(one, other)
    except CrystallmError:
        return 0.0


def lattice(parameters: Sequence[float]) -> Floats:
    """Vectors [3, 3] (rows, Å) of a cell given by a, b, c (Å), alpha, beta, gamma (degrees).

    A cell without volume gives vectors that are no numbers.
    """
    a, b, c = parameters[:3]
    cos_a, cos_b, cos_g = np.cos(np.radians(parameters[3:]))
    sin_g = np.sqrt(1 - cos_g**2)
    x, y = cos_b, (cos_a - cos_b * cos_g) / sin_g
    with np.errstate(invalid="ignore"):
        z = np.sqrt(1 - x * x - y * y)
    return np.array([[a, 0.0, 0.0], [b * cos_g, b * sin_g, 0.0], [c * x, c * y, c * z]])


@cache
def _cells(*bounds: int) -> Floats:
    """Shifts [n, 3] within least and greatest numbers of cells along each axis."""
    ranges = (range(low, high + 1) for low, high in zip(bounds[:3], bounds[3:], strict=True))
    return np.array(list(itertools.product(*ranges)), dtype=np.float64)


class Atoms:
    """The atoms of a cell that is being written, orbit by orbit.

    All atoms of an orbit have the same surroundings, so its first one speaks for it.

    Args:
        vectors: [3, 3] of the cell (rows), Å.

    Attributes:
        points: [n_atoms, 3] fractions.
        symbols: an element for each orbit.
        sizes: and its number of atoms.
    """

    def __init__(self, vectors: Floats) -> None:
        self.vectors = vectors
        self.points: Floats = np.zeros((0, 3))
        self.symbols: list[str] = []
        self.sizes: list[int] = []
        images = _OTHER_SHIFTS @ vectors
        self._own = float(np.sqrt((images**2).sum(axis=1).min()))  # from an atom to its nearest own image, Å

    def add(self, own: Floats, symbol: str) -> None:
        """Add an orbit [n, 3], fractions."""
        self.points = np.vstack([self.points, own])
        self.symbols.append(symbol)
        self.sizes.append(len(own))

    def meets(self, own: Floats, symbol: str) -> bool:
        """Whether the atoms of another orbit [n, 3] would stand too close to each other or to those here."""
        limit = SHARE * bond_length(symbol, symbol)
        if self._own < limit:
            return True
        others = [SHARE * bond_length(symbol, other) for other in self.symbols]
        limits = np.repeat([*others, limit], [*self.sizes, len(own) - 1])
        distances = self._distances(own[0], np.vstack([self.points, own[1:]]))
        return bool((distances < limits).any())

    def clear(self, ways: tuple[Floats, Floats], steps: int, symbol: str) -> Bools:
        """Where on a line another orbit may stand without `meets`, as its last coordinate x goes round.

        The atoms of the orbit are at shifts + x matrices, and d^2 < limit^2 of two that move at a constant
        rate holds between the two roots of a quadratic in x.

        Args:
            ways: matrices and shifts [n, 3] of the atoms of the orbit, fractions.
            steps: in a cell edge.
            symbol: element of the orbit.

        Returns:
            [steps] for x = 0, 1 / steps, ...
        """
        limit = SHARE * bond_length(symbol, symbol)
        if self._own < limit:
            return np.zeros(steps, dtype=bool)
        matrices, shifts = ways
        limits = np.repeat([SHARE * bond_length(symbol, other) for other in self.symbols], self.sizes)
        blocked = np.zeros(steps + 1, dtype=np.int64)
        self._block(blocked, self.points - shifts[0], np.tile(-matrices[0], (len(self.points), 1)), limits)
        self._block(
            blocked, shifts[1:] - shifts[0], matrices[1:] - matrices[0], np.full(len(shifts) - 1, limit)
        )
        return np.asarray(blocked.cumsum()[:steps] == 0)

    def _block(self, blocked: Ints, starts: Floats, rates: Floats, limits: Floats) -> None:
        """Add 1 where the steps begin in which a pair is too close, and take it away behind their end.

        Args:
            blocked: [steps + 1].
            starts: [n, 3] from one atom to the other at x = 0, fractions.
            rates: [n, 3] its change from x = 0 to 1, integers.
            limits: [n] Å.
        """
        if not len(starts):
            return
        steps = len(blocked) - 1
        low = -1 - np.maximum(rates.max(axis=0), 0)
        high = 1 - np.minimum(rates.min(axis=0), 0)
        cells = _cells(*low.astype(int).tolist(), *high.astype(int).tolist())
        rate = rates @ self.vectors  # [n, 3] Å
        off = ((starts - np.rint(starts)) @ self.vectors)[:, None] + cells @ self.vectors  # [n, n_cells, 3] Å
        rate_2, limits_2 = (rate**2).sum(axis=1)[:, None], (limits**2)[:, None]  # [n, 1]
        still = rate_2 < 1e-9  # a pair that moves together
        off_2 = (off**2).sum(axis=2)  # [n, n_cells]
        blocked[0] += int((still & (off_2 < limits_2)).any())
        rate_2 = np.where(still, 1.0, rate_2)
        middle = -(off @ rate[:, :, None])[:, :, 0] / rate_2
        half_2 = (limits_2 - off_2) / rate_2 + middle**2
        hits = (half_2 > 0) & ~still
        middle, half = middle[hits], np.sqrt(half_2[hits])
        first = np.floor(steps * (middle - half)).astype(np.int64) + 1
        behind = np.ceil(steps * (middle + half)).astype(np.int64)
        first, behind = first.clip(0, steps), behind.clip(0, steps)
        np.add.at(blocked, first, 1)
        np.add.at(blocked, np.maximum(first, behind), -1)

    def fault(self, number: int, *, bonds_too: bool) -> str:
        """What is wrong with the crystal, all its atoms being here.

        Args:
            number: of the space group that was written.
            bonds_too: whether to look at bonds.

        Returns:
            `group`, `bonds`, or "" for nothing.
        """
        if not self.has_group(number):
            return "group"
        return "bonds" if bonds_too and self.has_odd_bonds() else ""

    def has_group(self, number: int) -> bool:
        """Whether spglib finds this space group; True where it is not installed."""
        try:
            import spglib
        except ImportError:
            return True
        if not np.isfinite(self.vectors).all():
            return False
        numbers = np.repeat([elements.get(symbol).number for symbol in self.symbols], self.sizes)
        cell: Any = (self.vectors, self.points, numbers)
        found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC, angle_tolerance=5)
        return found is not None and found.number == number

    def has_odd_bonds(self) -> bool:
        """Whether a bond has no reasonable length (see `bonds`); never where bonds cannot be told."""
        symbols = np.repeat(self.symbols, self.sizes).tolist()
        orbits = zip(np.cumsum([0, *self.sizes[:-1]]).tolist(), self.sizes, strict=True)
        try:
            return bonds.score(self.vectors, self.points, symbols, orbits) < 1
        except (CrystallmError, ImportError):
            return False

    def _distances(self, point: Floats, others: Floats) -> Floats:
        """[n] from a point to the nearest images of others [n, 3], Å."""
        off = others - point
        off = (off - np.rint(off))[:, None, :] + _SHIFTS[None]  # (n, 27, 3)
        return np.asarray(np.sqrt(((off @ self.vectors) ** 2).sum(axis=2).min(axis=1)))
