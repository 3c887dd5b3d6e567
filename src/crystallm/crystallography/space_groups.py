"""The 230 space groups in spglib's default setting: symbols, operators, Wyckoff positions, cells.

That setting is the Hall symbol with the smallest serial number of each type: unique axis b, cell choice 1,
origin choice 1, hexagonal axes. Coordinates are fractional throughout. An operator (R, t) takes x to R x + t.
The table is made by `scripts/make_spacegroups.py`.
"""

from __future__ import annotations

import difflib
import gzip
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from crystallm.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
GENERIC = (0.12345, 0.28718, 0.39173)
"""Values of free parameters that are not special in any group."""
UNIT = 24
"""Translations and offsets are stored as integers in 24ths."""
PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")
SYSTEMS = (
    (2, "triclinic", PARAMETERS),
    (15, "monoclinic", ("a", "b", "c", "beta")),
    (74, "orthorhombic", ("a", "b", "c")),
    (142, "tetragonal", ("a", "c")),
    (167, "trigonal", ("a", "c")),
    (194, "hexagonal", ("a", "c")),
    (230, "cubic", ("a",)),
)


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """A Wyckoff position; its representative point is matrix @ (x, y, z) + offset.

    Attributes:
        letter: 'a' to 'z', and 'A' for the 27th of Pmmm (alpha in the International Tables).
        multiplicity: number of points in the conventional cell.
        matrix: [3, 3] integers; columns of parameters that are not free are zero.
        offset: [3] fractions; zero wherever a coordinate equals a free parameter.
        free: indices of the free parameters, a subset of (0, 1, 2).
        pivots: for each free parameter, the coordinate that equals it.
    """

    letter: str
    multiplicity: int
    matrix: Ints
    offset: Floats
    free: tuple[int, ...]
    pivots: tuple[int, ...]

    @property
    def label(self) -> str:
        """Multiplicity and letter, '4c'."""
        return f"{self.multiplicity}{self.letter}"

    def point(self, parameters: tuple[float, ...] | list[float]) -> Floats:
        """Return the representative point [3] for values of the free parameters, in their order."""
        values = np.zeros(3)
        values[list(self.free)] = parameters
        return np.asarray(self.matrix @ values + self.offset, dtype=np.float64)

    def residual(self, points: Floats) -> Floats:
        """Return the largest differences [n] of points [n, 3] from the representative subspace."""
        values = np.zeros_like(points)
        if self.free:
            values[:, list(self.free)] = points[:, list(self.pivots)]
        return apart(points - values @ self.matrix.T, self.offset)


def apart(points: Floats, others: Floats) -> Floats:
    """Return the largest difference of a coordinate (fraction) of points [..., 3], modulo lattice vectors."""
    off = points - others
    return np.asarray(np.abs(off - np.rint(off)).max(axis=-1), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """A space-group type in spglib's default setting.

    Attributes:
        number: 1 to 230.
        symbol: Hermann-Mauguin symbol, 'P4_2/mnm'.
        rotations: [n_ops, 3, 3] integers; the identity comes first.
        translations: [n_ops, 3] fractions in [0, 1).
        wyckoff: positions, 'a' first, the general position last.
        normaliser: rotations [n, 3, 3] and shifts [n, 3]: one representative for each coset of the group in
            the proper part of its Euclidean normaliser, the identity first; shifts along `polar` axes are
            left out.
        letter_maps: for each coset of the normaliser, the Wyckoff index that each Wyckoff index becomes.
        polar: axes along which the origin may be chosen freely.
    """

    number: int
    symbol: str
    rotations: Ints
    translations: Floats
    wyckoff: tuple[WyckoffPosition, ...]
    normaliser: tuple[Ints, Floats]
    letter_maps: tuple[tuple[int, ...], ...]
    polar: tuple[int, ...]

    @property
    def crystal_system(self) -> str:
        """'triclinic' to 'cubic'."""
        return next(name for last, name, _ in SYSTEMS if self.number <= last)

    @cached_property
    def n_centrings(self) -> int:
        """Lattice points of the conventional cell: 1 for P, 2 for A, C and I, 3 for R, 4 for F."""
        return int((self.rotations == np.eye(3, dtype=int)).all((1, 2)).sum())

    @cached_property
    def free_cell(self) -> tuple[str, ...]:
        """Names of the cell parameters that the group leaves free, a subset of PARAMETERS."""
        return next(names for last, _, names in SYSTEMS if self.number <= last)

    def complete_cell(self, free: dict[str, float]) -> tuple[float, float, float, float, float, float]:
        """Return all six cell parameters (Å, degrees) from the free ones."""
        a = free["a"]
        b = free.get("b", a)
        c = free.get("c", a)
        gamma = 120.0 if 143 <= self.number <= 194 else 90.0
        return a, b, c, free.get("alpha", 90.0), free.get("beta", 90.0), free.get("gamma", gamma)

    @cached_property
    def xyz_operators(self) -> tuple[str, ...]:
        """The operators as CIF writes them: `-y, x-y, z+1/3`."""
        pairs = zip(self.rotations.tolist(), self.translations.tolist(), strict=True)
        return tuple(", ".join(map(_xyz, rotation, translation)) for rotation, translation in pairs)

    @cached_property
    def by_label(self) -> dict[str, WyckoffPosition]:
        """Wyckoff positions by label, '4c'."""
        return {w.label: w for w in self.wyckoff}

    @cached_property
    def orbit_maps(self) -> tuple[tuple[Floats, Floats], ...]:
        """For each Wyckoff position, the maps of its parameters onto the points of its orbit.

        Matrices [multiplicity, 3, n_free] and shifts [multiplicity, 3]: with values x of the free parameters,
        points matrices @ x + shifts, not wrapped, the representative first.
        """
        return tuple(self._maps(position) for position in self.wyckoff)

    def _maps(self, position: WyckoffPosition) -> tuple[Floats, Floats]:
        images = self.images(position.point(GENERIC[: len(position.free)]))
        kept: list[int] = []
        for i, image in enumerate(images):
            if not (apart(images[kept], image) < 1e-4).any():
                kept.append(i)
        matrices = self.rotations[kept] @ position.matrix[:, list(position.free)]
        shifts = self.rotations[kept] @ position.offset + self.translations[kept]
        return matrices.astype(np.float64), np.asarray(shifts, dtype=np.float64)

    def is_general(self, index: int, parameters: Sequence[float]) -> bool:
        """Return whether a point of a Wyckoff position, by its index, lies on none of lower multiplicity."""
        matrices, shifts = self.orbit_maps[index]
        points = matrices @ np.asarray(parameters, dtype=np.float64) + shifts
        return bool((apart(points[1:], points[0]) > 1e-4).all())

    def images(self, point: Floats) -> Floats:
        """Return all images [n_ops, 3] of a point, one per operator, repeated ones included, not wrapped."""
        return np.asarray(self.rotations @ point + self.translations, dtype=np.float64)

    def orbit(self, point: Floats, tolerance: float = 1e-4) -> Floats:
        """Return the distinct images [multiplicity, 3] of a point in [0, 1), the point itself first."""
        images = self.images(point) % 1.0
        kept: list[Floats] = []
        while len(images):
            first = images[0]
            kept.append(first)
            images = images[apart(images, first) > tolerance]
        return np.array(kept) % 1.0

    def snap(
        self, point: Floats, multiplicity: int, tolerance: float
    ) -> tuple[WyckoffPosition, Floats] | None:
        """Return the Wyckoff position of a multiplicity that a point lies on, and the point moved onto it.

        Args:
            point: [3] fractions.
            multiplicity: points in the conventional cell.
            tolerance: largest difference of a coordinate (fraction).

        Returns:
            The position and the nearest point [3] on it; None if none is within the tolerance.
        """
        images = self.images(np.asarray(point, dtype=np.float64))
        best: tuple[float, WyckoffPosition, Floats] | None = None
        for position in self.wyckoff:
            if position.multiplicity != multiplicity:
                continue
            off = position.residual(images)
            index = int(off.argmin())
            if off[index] <= tolerance and (best is None or off[index] < best[0] - 1e-9):
                image = images[index]
                exact = position.point([image[pivot] for pivot in position.pivots])
                exact = image + (exact - image) - np.rint(exact - image)
                back = np.linalg.solve(self.rotations[index], exact - self.translations[index])
                best = (float(off[index]), position, np.asarray(back, dtype=np.float64))
        return None if best is None else (best[1], best[2])


def _xyz(row: list[int], shift: float) -> str:
    """Return one coordinate of an operator, `x-y+1/3`; translations are multiples of 1/24."""
    terms = "".join(f"{'+' if n > 0 else '-'}{axis}" for n, axis in zip(row, "xyz", strict=True) if n)
    fraction = Fraction(round(shift * UNIT) % UNIT, UNIT)
    return terms.removeprefix("+") + (f"+{fraction}" if fraction else "")


@cache
def _table() -> dict[str, Any]:
    packed = (files("crystallm.crystallography") / "data" / "spacegroups.json.gz").read_bytes()
    table: dict[str, Any] = json.loads(gzip.decompress(packed))
    return table


def _position(row: dict[str, Any]) -> WyckoffPosition:
    matrix = np.array(row["matrix"], dtype=np.int64).reshape(3, 3)
    free = tuple(axis for axis in range(3) if matrix[:, axis].any())
    pivots = tuple(
        next(i for i in (axis, 0, 1, 2) if matrix[i, axis] == 1 and np.count_nonzero(matrix[i]) == 1)
        for axis in free
    )
    offset = np.array(row["offset"]) / UNIT
    return WyckoffPosition(row["letter"], row["multiplicity"], matrix, offset, free, pivots)


@cache
def _get(number: int) -> SpaceGroup:
    row = _table()[str(number)]
    operations = np.array(row["operations"], dtype=np.int64)
    normaliser = np.array(row["normaliser"], dtype=np.int64)
    return SpaceGroup(
        number=number,
        symbol=row["symbol"],
        rotations=operations[:, :9].reshape(-1, 3, 3),
        translations=operations[:, 9:] / UNIT,
        wyckoff=tuple(_position(w) for w in row["wyckoff"]),
        normaliser=(normaliser[:, :9].reshape(-1, 3, 3), normaliser[:, 9:] / UNIT),
        letter_maps=tuple(map(tuple, row["letter_maps"])),
        polar=tuple(row["polar"]),
    )


def _plain(symbol: str) -> str:
    return "".join(c for c in symbol if c not in "_ ():'\"")


@cache
def _numbers() -> dict[str, int]:
    """Return numbers by symbol, as printed and without blanks and underscores."""
    exact = {row["symbol"]: int(number) for number, row in _table().items()}
    return {**{_plain(symbol): number for symbol, number in exact.items()}, **exact}


def symbols() -> tuple[str, ...]:
    """Return the 230 symbols in the order of their numbers."""
    return tuple(row["symbol"] for row in _table().values())


def wyckoff_labels() -> set[str]:
    """Return the labels, '4c', of the Wyckoff positions of all groups, without building the groups."""
    return {f"{w['multiplicity']}{w['letter']}" for row in _table().values() for w in row["wyckoff"]}


def get(group: int | str) -> SpaceGroup:
    """Return the space group of a number (225, '225') or symbol ('P4_2/mnm', 'P42/mnm', 'P 42/m n m').

    Raises:
        InputError: no such group; names the nearest symbols.
    """
    if type(group) is int and 1 <= group <= 230:
        return _get(group)
    name = str(group).strip()
    # Cut, because int() rejects numbers of 4,301 digits.
    number = int(name[:9]) if name.isdecimal() else _numbers().get(name) or _numbers().get(_plain(name))
    if number is None:
        name = name[:40]
        near = difflib.get_close_matches(name, symbols(), n=3, cutoff=0.5)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise InputError(
            f"no space group {name!r}: give a number from 1 to 230 or a symbol such as Fm-3m{hint}"
        )
    if not 1 <= number <= 230:
        raise InputError(f"no space group {number}: numbers run from 1 to 230")
    return _get(number)


def from_any_setting(name: str) -> SpaceGroup:
    """Return the space group of a symbol in any setting.

    Beyond what `get` reads: symbols of other settings (`Pbnm` is #62, `P2_1/n` #14), full ones (`P 1 21/c 1`)
    and old ones (`Cmca` is #64, `Fm3m` #225), a suffix for the setting (`Fd-3m:2`, `R-3mH`), another case if
    unambiguous (`fm-3m`), bars and subscripts of Unicode, and numbers as we print them (`no. 225`).

    Axes are not converted: use `get` for symbols that belong to coordinates. Rhombohedral axes (`R-3m:R`) are
    rejected, because their cell holds a third of the formula units.

    Raises:
        InputError: no such group; names the nearest symbols.
    """
    try:
        return get(name)
    except InputError:
        plain = unicodedata.normalize("NFKC", re.sub("[\u2010\u2013\u2212]", "-", name))
        plain = re.sub(r"(\d)[\u0304\u0305]", r"-\1", plain)
        plain = re.sub(r"^\s*(?:#|no\.?)\s*(?=\d+\s*$)", "", plain, flags=re.IGNORECASE)
        plain = re.sub(r"(?<=\w)(?::[12H]|[HSZ])\s*$", "", plain)
        if plain.strip().isdecimal():
            return get(plain)
        plain = _plain(plain)
        number = _numbers().get(plain) or _settings().get(plain) or _settings().get(plain.lower())
        if number is None:
            raise
        return _get(number)


@cache
def _settings() -> dict[str, int]:
    """Return numbers by symbols of all settings, without blanks and underscores, also in lower case.

    Ambiguous symbols are left out.
    """
    import spglib

    numbers: dict[str, set[int]] = defaultdict(set)
    for hall in range(1, 531):
        kind: Any = spglib.get_spacegroup_type(hall)
        names = {kind.international_short, kind.international_full, *kind.international.split(" = ")}
        for name in (way for symbol in names for way in _respelled(symbol.strip(), kind.number)):
            numbers[_plain(name)].add(kind.number)
            numbers[_plain(name).lower()].add(kind.number)
    return {name: own.pop() for name, own in numbers.items() if len(own) == 1}


def _respelled(symbol: str, number: int) -> Iterator[str]:
    """Yield the common spellings of a symbol of spglib."""
    yield symbol
    if 3 <= number <= 15:  # P 1 2_1/n 1
        yield re.sub(r" 1(?= |$)", "", symbol)
    if 16 <= number <= 74 and " " in symbol and "e" in symbol:
        # Before 1992 a double glide e, perpendicular to an axis, had the name of one along another axis.
        lattice, *parts = symbol.split()
        for axis, letter in enumerate("abc"):
            if "e" in parts[axis]:
                for other in "abc".replace(letter, ""):
                    yield " ".join(
                        (lattice, *parts[:axis], parts[axis].replace("e", other), *parts[axis + 1 :])
                    )
    if number >= 200:  # Fm3m, of the time when -3 was the shorter name of 3 beside mirrors
        yield symbol.replace("-3", "3")
