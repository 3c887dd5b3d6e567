"""Contacts of atoms in a growing cell: too short, with implausible bonds, or of another space group.

Works on points, cells and expected bond lengths with numpy; uses spglib and the libraries for bonds where
they are installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from math import ceil, floor, inf, sqrt
from typing import Any

import numpy as np

from crystallm.crystallography import elements
from crystallm.crystallography.space_groups import Bools, Floats, Ints
from crystallm.errors import CrystallmError
from crystallm.geometry import bonds, distances, extra_symmetry
from crystallm.geometry.compiled import Compiled
from crystallm.geometry.distances import offset, to_vector
from crystallm.geometry.symmetry_search import find_symmetry

SHARE = 0.68
"""Smallest distance of two atoms as a share of the expected length of their bond, above which the paper's
checks call it reasonable; known crystals say more of most pairs (see `distances`). Of 1,492 crystals of the
training corpus 0.6 % have a shorter one; the median of the shortest is 0.93."""
SYMPREC = 0.1
"""Å; tolerance with which `validity` finds the group of a crystal."""

VOLUMES = (4.0, 300.0)
"""Least and largest volume per atom, Å^3. The least of the same crystals is 4.4; 0.1 % have more than 275."""

STILL = 1e-9
"""Å^2; a pair of atoms whose offset changes by less, for x from 0 to 1, moves together."""
_CAPACITY = 32  # atoms at first


@cache
def bond_length(one: str, other: str) -> float:
    """Return the expected length of a bond, Å; 0 if it is not known."""
    try:
        return bonds.expected_length(one, other)
    except CrystallmError:
        return 0.0


@cache
def least_distance(one: str, other: str) -> float:
    """Return the least distance of two atoms by the paper's checks and in known crystals, Å."""
    return max(SHARE * bond_length(one, other), distances.known().least.get((one, other), 0.0))


@cache
def forbidden_distances(one: str, other: str) -> tuple[float, float, float]:
    """Return the least distance of two atoms, and start and end of their gap (0, 0 for none), Å."""
    return least_distance(one, other), *distances.known().gaps.get((one, other), (0.0, 0.0))


class PlacedAtoms:
    """The atoms of a growing cell, orbit by orbit.

    All atoms of an orbit have equal neighborhoods, so only the first one is checked.

    Args:
        vectors: [3, 3] of the cell (rows), Å.

    Attributes:
        symbols: element of each orbit.
        sizes: number of atoms of each orbit.
        implausible: indices of the orbits at both ends of each implausible bond that `fault` found, twice
            that of an orbit of lone atoms.
    """

    def __init__(self, vectors: Floats) -> None:
        self.vectors = vectors
        self.symbols: list[str] = []
        self.sizes: list[int] = []
        self.implausible: list[tuple[int, int]] = []
        self._points: Floats = np.zeros((_CAPACITY, 3))  # fractions, of the atoms and of room for more
        self._kinds: Ints = np.zeros(_CAPACITY, dtype=np.int64)  # their elements, by index in:
        self._elements: list[str] = []
        self._n_atoms = 0
        self._images: Floats = distances.SHIFTS @ vectors  # [27, 3] Å
        squares = np.einsum("ij,ij->i", self._images, self._images).tolist()
        squares[len(squares) // 2] = math.inf  # no shift
        self._own = math.sqrt(min(squares))  # from an atom to its nearest own image, Å

    @property
    def points(self) -> Floats:
        """[n_atoms, 3] fractions."""
        return self._points[: self._n_atoms]

    def add(self, own: Floats, symbol: str) -> None:
        """Add an orbit [n, 3], fractions."""
        self._put(own, symbol)
        self._n_atoms += len(own)
        self.symbols.append(symbol)
        self.sizes.append(len(own))

    def _put(self, own: Floats, symbol: str) -> None:
        """Store an orbit after the atoms, for now."""
        n, end = self._n_atoms, self._n_atoms + len(own)
        if end > len(self._points):
            self._points = np.resize(self._points, (2 * end, 3))
            self._kinds = np.resize(self._kinds, 2 * end)
        if symbol not in self._elements:
            self._elements.append(symbol)
        self._points[n:end] = own
        self._kinds[n:end] = self._elements.index(symbol)

    def _limits(self, symbol: str, end: int) -> Floats:
        """Return the `forbidden_distances` [end, 3] of an atom to the first `end` atoms, Å."""
        by_kind = np.array([forbidden_distances(symbol, other) for other in self._elements])
        return np.asarray(by_kind.reshape(-1, 3)[self._kinds[:end]])

    def meets(self, own: Floats, symbol: str) -> bool:
        """Return whether another orbit [n, 3] has atoms at `forbidden_distances` from others or its own."""
        if self._own < least_distance(symbol, symbol):
            return True
        self._put(own[1:], symbol)
        end = self._n_atoms + len(own) - 1
        limits = self._limits(symbol, end)
        return bool(_too_close(end, self._points, own[0], self.vectors, self._images, limits * limits))

    def clear(self, lines: tuple[Floats, Floats], steps: int, symbol: str) -> Bools:
        """Return the values of the last coordinate x of another orbit for which it does not `meet` others.

        The atoms of the orbit are at shifts + x matrices, and d^2 < limit^2 of two that move at a constant
        rate holds between the two roots of a quadratic in x; those within the end of a gap are in it, but for
        those within its start.

        Args:
            lines: matrices and shifts [n, 3] of the atoms of the orbit, fractions.

        Returns:
            [steps] for x = 0, 1 / steps, ...
        """
        if self._own < least_distance(symbol, symbol):
            return np.zeros(steps, dtype=bool)
        matrices, shifts = lines
        limits = np.empty((self._n_atoms + len(shifts) - 1, 3))
        limits[: self._n_atoms] = self._limits(symbol, self._n_atoms)
        limits[self._n_atoms :] = forbidden_distances(symbol, symbol)
        starts = np.concatenate([self.points, shifts[1:]])  # [n, 3] of the others
        rates = np.concatenate([np.zeros((self._n_atoms, 3)), matrices[1:]]) - matrices[0]
        # Cells in which atoms that move at these rates may meet.
        low = -1 - np.maximum(rates.max(axis=0, initial=0), 0).astype(np.int64)
        high = 1 - np.minimum(rates.min(axis=0, initial=0), 0).astype(np.int64)
        changes = np.zeros(steps + 1, dtype=np.int64)
        path = shifts[0], starts, rates, low, high
        if not _leave_room(*path, self.vectors, limits * limits, steps, changes):
            return np.zeros(steps, dtype=bool)
        return np.asarray(changes.cumsum()[:steps] == 0)

    def fault(self, number: int, *, bonds_too: bool) -> str:
        """Return the fault of the complete crystal.

        Args:
            number: of the space group it should have.

        Returns:
            `group`, `bonds`, or "" for none.
        """
        if not self.has_group(number):
            return "group"
        return "bonds" if bonds_too and self.has_implausible_bonds() else ""

    def has_group(self, number: int) -> bool:
        """Return whether spglib finds this space group; True where it is not installed."""
        if not np.isfinite(self.vectors).all():
            return False
        if extra_symmetry.has_none(number, self.vectors, self.points, self._kinds[: self._n_atoms]):
            return True
        numbers = np.repeat([elements.get(symbol).number for symbol in self.symbols], self.sizes)
        try:
            dataset = find_symmetry(self.vectors, self.points, numbers, SYMPREC)
        except ImportError:
            return True
        return dataset is not None and dataset.number == number

    def has_implausible_bonds(self) -> bool:
        """Return whether an atom is lone, or a bond has no reasonable length (see `bonds`)."""
        symbols = np.repeat(self.symbols, self.sizes).tolist()
        firsts = np.cumsum([0, *self.sizes[:-1]])
        try:
            pairs = bonds.implausible(self.vectors, self.points, symbols, firsts.tolist())
        except (CrystallmError, ImportError):
            pairs = []
        orbits = np.searchsorted(firsts, np.array(pairs, dtype=int).reshape(-1, 2), side="right") - 1
        self.implausible = [(first, second) for first, second in orbits.tolist()]
        self.implausible += [(orbit, orbit) for orbit in self._lone(firsts.tolist())]
        return bool(self.implausible)

    def _lone(self, atoms: Sequence[int]) -> Iterator[int]:
        """Yield the orbits, each with one of its atoms, whose nearest neighbor is farther than known ones."""
        squares = distances.nearest_squares(self.vectors, self.points, atoms)
        squares[range(len(atoms)), atoms] = self._own**2
        for orbit, (nearest, symbol) in enumerate(
            zip(squares.min(axis=1).tolist(), self.symbols, strict=True)
        ):
            if nearest > distances.known().farthest[symbol] ** 2:
                yield orbit

    def keep(self, n_orbits: int) -> None:
        """Remove all orbits after the first ones."""
        del self.symbols[n_orbits:], self.sizes[n_orbits:]
        self._n_atoms = sum(self.sizes)


def _find_contact(  # noqa: PLR0917 - compiled code takes arguments by position
    n: int, points: Any, point: Any, vectors: Any, images: Any, limits_2: Any
) -> bool:
    """Return whether a point is at a forbidden distance from one of the first n points.

    Args:
        n: number of points.
        points: [n or more, 3] fractions.
        point: [3] fractions.
        vectors: [3, 3] of the cell, Å.
        images: [27, 3] of a cell and its neighbors, Å.
        limits_2: [n or more, 3] squares of `forbidden_distances`, Å^2.
    """
    for i in range(n):
        x, y, z = offset(point, points[i], vectors)
        for k in range(len(images)):
            dx, dy, dz = x + images[k][0], y + images[k][1], z + images[k][2]
            square = dx * dx + dy * dy + dz * dz
            if square < limits_2[i][0] or limits_2[i][1] < square < limits_2[i][2]:
                return True
    return False


def _contact_range(  # noqa: PLR0917 - as above
    x: float, y: float, z: float, rx: float, ry: float, rz: float, limit_2: float
) -> tuple[float, float]:
    """Return between which t the vector (x, y, z) + t (rx, ry, rz) is shorter than a limit; (0, 0) if never.

    One that changes by less than `STILL` from t = 0 to 1 is shorter always or never.
    """
    rate_2 = rx * rx + ry * ry + rz * rz
    spare = limit_2 - (x * x + y * y + z * z)
    if rate_2 < STILL:
        return (-inf, inf) if spare > 0 else (0.0, 0.0)
    middle = -(x * rx + y * ry + z * rz) / rate_2
    half_2 = spare / rate_2 + middle * middle
    half = sqrt(max(half_2, 0.0))
    return middle - half, middle + half


def _count_contacts(  # noqa: PLR0917 - compiled code takes arguments by position
    start: Any,
    starts: Any,
    rates: Any,
    low: Any,
    high: Any,
    vectors: Any,
    limits_2: Any,
    steps: int,
    changes: Any,
) -> bool:
    """Count where x puts the first atom of an orbit too close to others; return False if it is everywhere.

    Args:
        start: [3] of the atom, fractions.
        starts: [n, 3] of the others at x = 0, fractions.
        rates: [n, 3] by which their offsets from it change with x.
        low: [3] first cell of images along each axis.
        high: [3] last cell of images along each axis.
        vectors: [3, 3] of the cell, Å.
        limits_2: [n, 3] squares of `forbidden_distances`, Å^2.
        steps: values of x.
        changes: [steps + 1] where the number of atoms too close rises and falls; written.
    """
    for i in range(len(starts)):
        x, y, z = offset(start, starts[i], vectors)
        rx, ry, rz = to_vector(rates[i][0], rates[i][1], rates[i][2], vectors)
        for a in range(low[0], high[0] + 1):
            for b in range(low[1], high[1] + 1):
                for c in range(low[2], high[2] + 1):
                    sx, sy, sz = to_vector(a, b, c, vectors)
                    always = 0
                    for k in range(3):
                        change = 1 - 2 * (k % 2)  # outside the start of a gap
                        least, most = _contact_range(x + sx, y + sy, z + sz, rx, ry, rz, limits_2[i][k])
                        if most == inf:
                            always += change
                        elif least < most:
                            first = min(max(floor(steps * least) + 1, 0), steps)
                            changes[first] += change
                            changes[max(first, min(ceil(steps * most), steps))] -= change
                    if always:
                        return False
    return True


_too_close = Compiled(_find_contact, offset)
_leave_room = Compiled(_count_contacts, offset, to_vector, _contact_range)
