"""Crystals as members of prototypes: which roles there are, which element plays which, and substitution.

A prototype is a space group and its occupied Wyckoff positions, each with a role: positions of one element
have one role. Roles 0, 1, ... are ordered by their share of the atoms, the smallest first; among equal shares
and among the equivalent descriptions that the Euclidean normaliser of the group allows, the order is the one
that gives the smallest list of (role, position). So NaCl and GaAs have one prototype each, whatever the
origin, and whichever element is named first.

Substitution keeps space group, Wyckoff positions, free coordinates and cell ratios of a crystal, replaces the
elements of its roles, and takes the volume in units of the volumes of the new atoms (see
`orbits.description`).
"""

from __future__ import annotations

import itertools
import math
import re
import string
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

from crystallm.crystallography import elements, space_groups
from crystallm.errors import CrystallmError, TextError
from crystallm.orbits import canonical
from crystallm.orbits.description import Description, of_orbits, to_structure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pymatgen.core import Structure

LETTERS = string.ascii_uppercase
"""Names of the roles; and the largest number of elements of a crystal."""
_WORD = re.compile(r"([A-Z])(\d+[a-zA-Z])")
Positions = tuple[tuple[int, int], ...]
"""Role, and index of the Wyckoff position in the group, of each orbit, sorted."""


@dataclass(frozen=True, slots=True)
class CrystalType:
    """A prototype.

    Attributes:
        proportions: number of atoms of each role in a formula unit, which rises.
        space_group: number.
        positions: of its orbits.
    """

    proportions: tuple[int, ...]
    space_group: int
    positions: Positions

    @property
    def z(self) -> int:
        """Formula units in the conventional cell."""
        wyckoff = space_groups.get(self.space_group).wyckoff
        first = sum(wyckoff[position].multiplicity for role, position in self.positions if role == 0)
        return first // self.proportions[0]

    @property
    def n_atoms(self) -> int:
        """Atoms of the conventional cell."""
        return self.z * sum(self.proportions)

    @property
    def n_primitive(self) -> int:
        """Atoms of the primitive cell."""
        return self.n_atoms // space_groups.get(self.space_group).n_centrings

    @property
    def text(self) -> str:
        """Complete name, `A1B1C3 221 A1a B1b C3c`: each role is a letter."""
        labels = [position.label for position in space_groups.get(self.space_group).wyckoff]
        return " ".join(
            [
                proportions_text(self.proportions),
                str(self.space_group),
                *(f"{LETTERS[role]}{labels[position]}" for role, position in self.positions),
            ]
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the name of a prototype.

        Raises:
            TextError: it is none.
        """
        try:
            head, number, *orbits = text.split()
            pairs = [_WORD.fullmatch(orbit).groups() for orbit in orbits]  # type: ignore[union-attr]
            index = {position.label: i for i, position in enumerate(space_groups.get(int(number)).wyckoff)}
            return cls(
                tuple(int(count) for count in re.findall(r"\d+", head)),
                int(number),
                tuple((LETTERS.index(letter), index[label]) for letter, label in pairs),
            )
        except (ValueError, KeyError, AttributeError, CrystallmError):
            raise TextError(f"{text[:60]!r} is no prototype") from None


@dataclass(frozen=True, slots=True)
class PrototypeMember:
    """A crystal as a member of its prototype.

    Attributes:
        prototype: of the crystal.
        elements: symbol of each role.
        coordinates: free coordinates of each orbit in the order of the positions, thousandths of an edge.
        cell: free cell parameters, as in `Description.cell`.
    """

    prototype: CrystalType
    elements: tuple[str, ...]
    coordinates: tuple[tuple[int, ...], ...]
    cell: tuple[int, ...]


def member_of(description: Description) -> PrototypeMember:
    """Return a crystal as a member of its prototype."""
    group = space_groups.get(description.space_group)
    symbols = [symbol for symbol, _ in description.composition]
    divisor = math.gcd(*(count for _, count in description.composition))
    counts = tuple(count // divisor for _, count in description.composition)
    index = {position.label: i for i, position in enumerate(group.wyckoff)}
    orbits = [
        (
            symbols.index(orbit.element),
            index[orbit.label],
            group.by_label[orbit.label].point([value / canonical.STEPS for value in orbit.coordinates]),
        )
        for orbit in description.orbits
    ]
    occupied = tuple(sorted((rank, position) for rank, position, _ in orbits))
    positions, order = _role_order(group.number, occupied, counts)
    role_of = {rank: role for role, rank in enumerate(order)}
    if positions == occupied and order == tuple(range(len(order))):  # the description has this order already
        coordinates = tuple(orbit.coordinates for orbit in description.orbits)
    elif not any(orbit.coordinates for orbit in description.orbits):
        coordinates = tuple(() for _ in positions)
    else:
        found = canonical.smallest(
            group, [(role_of[rank], position, point) for rank, position, point in orbits]
        )
        coordinates = tuple(point for _, _, point in found)
    return PrototypeMember(
        CrystalType(tuple(counts[rank] for rank in order), group.number, positions),
        tuple(symbols[rank] for rank in order),
        coordinates,
        description.cell,
    )


@lru_cache(maxsize=100_000)
def _role_order(
    space_group: int, occupied: Positions, counts: tuple[int, ...]
) -> tuple[Positions, tuple[int, ...]]:
    """Return the smallest positions over all orders of roles, and the rank of the element of each role."""
    return min((arranged(space_group, occupied, _inverse(order)), order) for order in assignments(counts))


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(order)
    for i, value in enumerate(order):
        inverse[value] = i
    return tuple(inverse)


def assignments(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield all orders of indices in which the counts rise: (0, 2, 1) and (2, 0, 1) of (1, 2, 1)."""
    groups = [[i for i, count in enumerate(counts) if count == value] for value in sorted(set(counts))]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain.from_iterable(parts))


@lru_cache(maxsize=200_000)
def arranged(space_group: int, positions: Positions, names: tuple[int, ...]) -> Positions:
    """Return the smallest equivalent positions after each role has got another number.

    Two substitutions of a prototype are the same arrangement of atoms if these are equal.

    Args:
        space_group: number.
        positions: with roles.
        names: new number of each role.
    """
    return min(
        tuple(sorted((names[role], letters[position]) for role, position in positions))
        for letters in space_groups.get(space_group).letter_maps
    )


def substituted(member: PrototypeMember, symbols: Sequence[str]) -> Description:
    """Return the crystal in which each role is played by another element.

    Args:
        member: known crystal.
        symbols: element of each role.

    Raises:
        InputError: an element without a token.
        TextError: a position whose coordinates put it on one of lower multiplicity.
    """
    return placed(member, [symbols[role] for role, _ in member.prototype.positions])


def primitive_structure(member: PrototypeMember, symbols: Sequence[str]) -> Structure:
    """Return the primitive cell of the crystal in which each role is played by another element.

    Raises:
        InputError, TextError: as `substituted`, or no cell has its angles.
    """
    return to_structure(substituted(member, symbols)).get_primitive_structure()


def placed(member: PrototypeMember, species: Sequence[str]) -> Description:
    """Return a crystal with other elements on the positions of a known one; raises as `substituted`.

    Args:
        member: known crystal.
        species: element on each position.
    """
    group = space_groups.get(member.prototype.space_group)
    order = elements.electronegativity_order(dict.fromkeys(species))
    rank = {symbol: i for i, symbol in enumerate(order)}
    counts: dict[str, int] = dict.fromkeys(order, 0)
    orbits = []
    for symbol, (_, index), coordinates in zip(
        species, member.prototype.positions, member.coordinates, strict=True
    ):
        position = group.wyckoff[index]
        counts[symbol] += position.multiplicity
        point = position.point([value / canonical.STEPS for value in coordinates])
        orbits.append((rank[symbol], index, point))
    return of_orbits(tuple(counts.items()), group, orbits, member.cell)


def proportions_text(proportions: Sequence[int]) -> str:
    """Return proportions with a letter for each role, `A1B1C3`."""
    return "".join(f"{letter}{count}" for letter, count in zip(LETTERS, proportions, strict=False))


def roles_of(counts: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the rising proportions of a composition, and its elements in this order."""
    divisor = math.gcd(*counts.values())
    order = sorted(elements.electronegativity_order(counts), key=lambda symbol: counts[symbol])
    return tuple(counts[symbol] // divisor for symbol in order), tuple(order)
