"""Contacts of atoms in a growing cell: too short, with implausible bonds, or of another space group.

Works on points, cells and expected bond lengths with numpy; uses spglib and the libraries for bonds where
they are installed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from crystallm.crystallography import elements
from crystallm.crystallography.space_groups import Bools, Floats, Ints
from crystallm.errors import CrystallmError
from crystallm.geometry import bonds, distances, extra_symmetry
from crystallm.geometry.symmetry_search import find_symmetry

SHARE = 0.68
"""Smallest distance of two atoms as a share of the expected length of their bond, above which the paper's
checks call it reasonable; known crystals say more of most pairs (see `distances`). Of 1,492 crystals of the
training corpus 0.6 % have a shorter one; the median of the shortest is 0.93."""
SYMPREC = 0.1
"""Å; tolerance with which `validity` finds the group of a crystal."""

VOLUMES = (4.0, 300.0)
"""Least and largest volume per atom, Å^3. The least of the same crystals is 4.4; 0.1 % have more than 275."""

_SHIFTS = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))  # (27, 3)
_NO_SHIFT = 13  # of these
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
def _cells(*bounds: int) -> Floats:
    """Return the shifts [n, 3] within least and greatest numbers of cells along each axis."""
    ranges = (range(low, high + 1) for low, high in zip(bounds[:3], bounds[3:], strict=True))
    return np.array(list(itertools.product(*ranges)), dtype=np.float64)


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
        images = _SHIFTS @ vectors  # [27, 3] Å
        # |d + s|^2 = |d|^2 + 2 d . s + |s|^2 of a vector d to all images of its end
        self._doubled: Floats = 2 * images.T
        self._squares: Floats = np.einsum("ij,ij->i", images, images)
        others = self._squares.tolist()
        others[_NO_SHIFT] = math.inf
        self._own = math.sqrt(min(others))  # from an atom to its nearest own image, Å
        self._cells: dict[tuple[int, ...], Floats] = {}  # [n, 3] Å, by bounds

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
        """Return the least distances of an atom to the first `end` atoms, Å."""
        by_kind = np.array([least_distance(symbol, other) for other in self._elements])
        return np.asarray(by_kind[self._kinds[:end]])

    def meets(self, own: Floats, symbol: str) -> bool:
        """Return whether the atoms of another orbit [n, 3] are too close to each other or to those placed."""
        if self._own < least_distance(symbol, symbol):
            return True
        self._put(own[1:], symbol)
        end = self._n_atoms + len(own) - 1
        off = self._points[:end] - own[0]
        vectors = (off - np.rint(off)) @ self.vectors  # [n, 3] Å
        nearest = (vectors @ self._doubled + self._squares).min(axis=1)
        nearest += np.einsum("ij,ij->i", vectors, vectors)  # squares of distances
        limits = self._limits(symbol, end)
        return bool((nearest < limits * limits).any())

    def clear(self, lines: tuple[Floats, Floats], steps: int, symbol: str) -> Bools:
        """Return the values of the last coordinate x of another orbit for which it does not `meet` others.

        The atoms of the orbit are at shifts + x matrices, and d^2 < limit^2 of two that move at a constant
        rate holds between the two roots of a quadratic in x.

        Args:
            lines: matrices and shifts [n, 3] of the atoms of the orbit, fractions.

        Returns:
            [steps] for x = 0, 1 / steps, ...
        """
        limit = least_distance(symbol, symbol)
        if self._own < limit:
            return np.zeros(steps, dtype=bool)
        matrices, shifts = lines
        n = self._n_atoms
        limits = np.full(n + len(shifts) - 1, limit)
        limits[:n] = self._limits(symbol, n)
        starts = np.concatenate([self.points, shifts[1:]]) - shifts[0]
        rates = np.concatenate([np.zeros((n, 3)), matrices[1:]]) - matrices[0]
        # [n_pairs, n_cells, 3] Å from one atom to the other at x = 0
        off = ((starts - np.rint(starts)) @ self.vectors)[:, None] + self._cells_within(rates)
        return self._room(off, rates @ self.vectors, limits[:, None] ** 2, steps)

    def _cells_within(self, rates: Floats) -> Floats:
        """Return the cells [n, 3] (Å) in which atoms that move by these rates (fractions) may meet."""
        low = -1 - np.maximum(rates.max(axis=0, initial=0), 0)
        high = 1 - np.minimum(rates.min(axis=0, initial=0), 0)
        bounds = (*map(int, low.tolist()), *map(int, high.tolist()))
        if bounds not in self._cells:
            self._cells[bounds] = _cells(*bounds) @ self.vectors
        return self._cells[bounds]

    @staticmethod
    def _room(off: Floats, rate: Floats, limits_2: Floats, steps: int) -> Bools:
        """Return where x leaves all pairs far enough apart, as `clear`.

        Args:
            off: [n, n_cells, 3] from one atom to the other at x = 0, Å.
            rate: [n, 3] its change from x = 0 to 1, Å.
            limits_2: [n, 1] squares of least distances, Å^2.
        """
        rate_2 = np.einsum("ij,ij->i", rate, rate)[:, None]  # [n, 1]
        off_2 = np.einsum("ijk,ijk->ij", off, off)  # [n, n_cells]
        still = rate_2 < 1e-9  # a pair that moves together
        if still.any():
            if (still & (off_2 < limits_2)).any():
                return np.zeros(steps, dtype=bool)
            rate_2 = np.where(still, 1.0, rate_2)
        middle = np.matmul(off, rate[:, :, None])[:, :, 0] / -rate_2
        half_2 = (limits_2 - off_2) / rate_2 + middle * middle
        hits = (half_2 > 0) & ~still
        middle, half = middle[hits], np.sqrt(half_2[hits])
        first = np.floor(steps * (middle - half)).astype(np.int64) + 1
        end = np.ceil(steps * (middle + half)).astype(np.int64)
        first = np.minimum(np.maximum(first, 0), steps)
        end = np.maximum(first, np.minimum(end, steps))
        changes = np.bincount(first, minlength=steps + 1) - np.bincount(end, minlength=steps + 1)
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
        for orbit, (i, symbol) in enumerate(zip(atoms, self.symbols, strict=True)):
            off = self.points - self.points[i]
            vectors = (off - np.rint(off)) @ self.vectors  # [n_atoms, 3] Å
            nearest = (vectors @ self._doubled + self._squares).min(axis=1)
            nearest += np.einsum("ij,ij->i", vectors, vectors)
            nearest[i] = self._own**2
            if nearest.min() > distances.known().farthest[symbol] ** 2:
                yield orbit

    def keep(self, n_orbits: int) -> None:
        """Remove all orbits after the first ones."""
        del self.symbols[n_orbits:], self.sizes[n_orbits:]
        self._n_atoms = sum(self.sizes)
