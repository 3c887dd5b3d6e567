"""Detect the structure class of a crystal: rutile, spinel, elpasolite, pyrochlore, perovskite."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from crystallm.crystallography import elements
from crystallm.errors import InputError
from crystallm.geometry.symmetry_search import find_symmetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

SYMPREC = 0.1
"""Distance tolerance of the symmetry search, Å."""
ANGLE_TOLERANCE = 5.0
"""Angle tolerance of the symmetry search, degrees."""
MIN_VOLUME = 1e-3
"""Å^3; smaller cells are not standardized."""
ANIONS = frozenset("H N O F P S Cl As Se Br Te I".split())
"""Elements allowed as X."""
MAX_ATOMS = 1000
"""Maximum number of atoms of a crystal; larger ones have no class."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Coordination of a cation: `number` X with nearest * a < d < farthest * a, and none nearer."""

    number: int
    nearest: float
    farthest: float


@dataclass(frozen=True, slots=True)
class Prototype:
    """A structure class.

    Attributes:
        roles: formula of the class: its cations and X in this order.
        space_group: number.
        z: formula units in the conventional cell.
        counts: atoms of each role in the formula.
        positions: for each choice of origin, the Wyckoff letters of each role.
        shells: coordination of each cation.
    """

    name: str
    roles: str
    space_group: int
    z: int
    counts: tuple[int, ...]
    positions: tuple[tuple[str, ...], ...]
    shells: tuple[Shell, ...]
    lengths: tuple[str, ...] = ("a",)


# The shells include all compounds of the classes in 47,335 structures of open collections, with a margin of a
# tenth at the ends. They exclude molecules (SeI2 in P4_2/mnm, two neighbours at 0.33 a) and other types.
# Without free coordinates (perovskite) they are the exact distances, with a margin for rounding.
PROTOTYPES = {
    prototype.name: prototype
    for prototype in (
        Prototype(
            "rutile", "BX2", 136, 2, (1, 2),
            (("a", "f"), ("b", "f"), ("a", "g"), ("b", "g")),
            (Shell(6, 0.36, 0.48),),
            ("a", "c"),
        ),
        Prototype(
            "spinel", "AB2X4", 227, 8, (1, 2, 4),
            (("a", "d", "e"), ("b", "c", "e")),
            (Shell(4, 0.18, 0.28), Shell(6, 0.21, 0.28)),
        ),
        Prototype(
            "elpasolite", "A2BCX6", 225, 4, (2, 1, 1, 6),
            (("c", "a", "b", "e"), ("c", "b", "a", "e")),
            (Shell(12, 0.34, 0.37), Shell(6, 0.18, 0.32), Shell(6, 0.18, 0.32)),
        ),
        Prototype(
            "pyrochlore", "A2B2X7", 227, 8, (2, 2, 7),
            (("d", "c", "bf"), ("c", "d", "af")),
            (Shell(8, 0.21, 0.31), Shell(6, 0.17, 0.22)),
        ),
        Prototype(
            "perovskite", "ABX3", 221, 1, (1, 1, 3),
            (("b", "a", "d"), ("a", "b", "c")),
            (Shell(12, 0.69, 0.72), Shell(6, 0.49, 0.51)),
        ),
    )
}  # fmt: skip
"""The classes by name."""


@dataclass(frozen=True, slots=True)
class Member:
    """A crystal of a class.

    Attributes:
        elements: of each role, in order; of the two equal roles of an elpasolite the less electronegative
            element comes first.
        a: Å.
        c: Å.
    """

    name: str
    elements: tuple[str, ...]
    a: float
    c: float

    @property
    def formula(self) -> str:
        """Formula with the elements in the order of the roles: `Cs2NaTbCl6`."""
        counts = PROTOTYPES[self.name].counts
        return "".join(f"{s}{n}" if n > 1 else s for s, n in zip(self.elements, counts, strict=True))


def classify(structure: Structure) -> Member | None:
    """Return the class of a structure, in any cell, with the element of each role; None for no class."""
    if not structure.is_ordered or not 0 < len(structure) <= MAX_ATOMS:
        return None
    counts = Counter(str(species.symbol) for species in structure.species)
    divisor = math.gcd(*counts.values())
    unit = {symbol: count // divisor for symbol, count in counts.items()}
    candidates = [p for p in PROTOTYPES.values() if sorted(p.counts) == sorted(unit.values())]
    try:
        order = elements.electronegativity_order(unit)
    except InputError:  # an element without a token
        return None
    if not candidates or order[-1] not in ANIONS:
        return None
    symmetry = _symmetry(structure)
    if symmetry is None:
        return None
    for prototype in candidates:
        if symmetry.number != prototype.space_group:
            continue
        for cations in permutations(order[:-1]):
            placed = (*cations, order[-1])
            if tuple(unit[symbol] for symbol in placed) != prototype.counts:
                continue
            letters = tuple(_letters(structure, symmetry, symbol) for symbol in placed)
            if letters in prototype.positions and _in_shells(symmetry, prototype, placed):
                lattice = symmetry.std_lattice
                return Member(prototype.name, placed, float(lattice[0, 0]), float(lattice[2, 2]))
    return None


# -- one crystal ---------------------------------------------------------------------------------------------


def _symmetry(structure: Structure) -> Any:
    """Return spglib's dataset; None if it finds no symmetry."""
    matrix, coords = structure.lattice.matrix, structure.frac_coords
    if not structure.volume >= MIN_VOLUME:
        return None
    return find_symmetry(matrix, coords, structure.atomic_numbers, SYMPREC, ANGLE_TOLERANCE)


def _letters(structure: Structure, symmetry: Any, symbol: str) -> str:
    """Return the Wyckoff letters of an element, in alphabetical order."""
    pairs = zip(structure.species, symmetry.wyckoffs, strict=True)
    return "".join(sorted({letter for species, letter in pairs if species.symbol == symbol}))


def _in_shells(symmetry: Any, prototype: Prototype, placed: Sequence[str]) -> bool:
    """Return whether each cation has the coordination of its role."""
    import numpy as np

    a = symmetry.std_lattice[0, 0]
    steps = np.array(list(np.ndindex(5, 5, 5))) - 2  # [125, 3] neighbouring cells
    x = symmetry.std_positions[symmetry.std_types == elements.get(placed[-1]).number]  # [n_x, 3]
    for symbol, shell in zip(placed, prototype.shells, strict=False):  # X has no shell
        atom = symmetry.std_positions[symmetry.std_types == elements.get(symbol).number][0]
        vectors = (x - atom)[:, None, :] + steps  # [n_x, 125, 3]
        distances = np.linalg.norm(vectors @ symmetry.std_lattice, axis=-1) / a
        n_inner, n_outer = (distances < shell.nearest).sum(), (distances < shell.farthest).sum()
        if n_inner or n_outer != shell.number:
            return False
    return True


def prototype_of(name: str) -> Prototype:
    """Return the prototype of this name. Raises InputError: unknown name."""
    try:
        return PROTOTYPES[name]
    except KeyError:
        raise InputError(f"no class {name!r}: there are {', '.join(PROTOTYPES)}") from None
