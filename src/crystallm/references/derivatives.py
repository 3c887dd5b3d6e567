"""Candidates made of known crystals that have one element more, or one less, than the composition.

- Merged: two roles of a known crystal are played by one element, as LiMn2F7 is made of LiVMnF7.
- Split: one role of a known crystal, on several positions, is played by two elements that share the positions
  in any way that gives their counts, as LiVMnF7 is made of LiMn2F7.

Positions are never split, so the space group of the known crystal is kept, or rises where elements are
merged. The distance of a known crystal is that of `similarity` with

    w_i d(a_i, b) + w_j d(a_j, b)          for elements a_i and a_j that share a role of element b,
    w_i (f d(a_i, b) + (1 - f) d(a_i, b')) for an element on two roles, f the share of the first in it.

Known crystals that give one arrangement of atoms stand for one derivative; its votes are the sum of
exp(-d / `WIDTH`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.errors import CrystallmError
from crystallm.orbits import description
from crystallm.references.candidates import element_costs, nearest_of, role_distances
from crystallm.references.prototypes import CrystalType, arranged, assignments, placed, roles_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from crystallm.orbits.description import Description
    from crystallm.references.candidates import Filter
    from crystallm.references.library import Library

N_NEAREST = 60
"""Known crystals of one pattern of roles that are taken, at most."""
FARTHEST = 1.0
"""Largest distance of a known crystal."""
WIDTH = 0.1
"""Distance over which a vote falls to 1 / e."""
MAX_MULTIPLE = 3
"""Largest number of formula units in a formula unit of a known crystal with two roles for one element."""
MAX_POSITIONS = 8
"""Most positions of a role that two elements share."""


class Pattern(NamedTuple):
    """Which elements play the roles of known crystals.

    Attributes:
        proportions: of the roles, which rise.
        players: elements of each role.
        counts: of the players, in the same formula unit.
        costs: what an element in place of the role's own adds to the distance, [n_roles, 119].
    """

    proportions: tuple[int, ...]
    players: tuple[tuple[str, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    costs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Derivative:
    """A candidate.

    Attributes:
        row: of the nearest known crystal that it is made of.
        distance: of this crystal.
        species: element on each of its positions.
        n_relatives: number of known crystals that give the same arrangement.
        votes: of these.
    """

    row: int
    distance: float
    species: tuple[str, ...]
    n_relatives: int
    votes: float


def find_derivatives(library: Library, counts: Mapping[str, int], wanted: Filter) -> list[Derivative]:
    """Return the derivatives for a composition, those with most votes first.

    Args:
        counts: atoms of each element, in any number of formula units.
        wanted: what all must have; of derivatives whose space group may rise, see `described`.
    """
    proportions, _ = roles_of(counts)
    n_atoms = sum(proportions)
    found = sorted(
        itertools.chain.from_iterable(
            _of_pattern(library, pattern, n_atoms, wanted) for pattern in patterns(counts)
        )
    )
    distances: dict[tuple[object, ...], list[float]] = {}
    first: dict[tuple[object, ...], tuple[int, tuple[str, ...]]] = {}
    ranks = {symbol: rank for rank, symbol in enumerate(counts)}
    for distance, row, species in found:
        prototype = library.prototype(int(library.codes[row]))
        occupied = tuple(
            sorted((ranks[one], index) for one, (_, index) in zip(species, prototype.positions, strict=True))
        )
        key = (
            prototype.space_group,
            arranged(prototype.space_group, occupied, tuple(range(len(counts)))),
        )
        distances.setdefault(key, []).append(distance)
        first.setdefault(key, (row, species))
    result = [
        Derivative(row, near[0], species, len(near), sum(math.exp(-one / WIDTH) for one in near))
        for near, (row, species) in zip(distances.values(), first.values(), strict=True)
    ]
    return sorted(result, key=lambda one: -one.votes)


def described(library: Library, derivative: Derivative, wanted: Filter) -> Description | None:
    """Return the crystal of a derivative, in its own space group; None if it is none, or not as wanted."""
    member = library.member(derivative.row)
    try:
        made = placed(member, derivative.species)
        if len(made.composition) < len(member.elements):
            made = description.describe(description.to_structure(made))
    except CrystallmError:
        return None
    proportions, symbols = roles_of(dict(made.composition))
    group = space_groups.get(made.space_group)
    index = {position.label: i for i, position in enumerate(group.wyckoff)}
    positions = tuple((symbols.index(orbit.element), index[orbit.label]) for orbit in made.orbits)
    return made if wanted.accepts(CrystalType(proportions, group.number, positions)) else None


def patterns(counts: Mapping[str, int]) -> Iterator[Pattern]:
    """Yield all patterns of roles with one role more, or one less, than a composition has elements."""
    proportions, symbols = roles_of(counts)
    costs = element_costs(proportions, symbols)
    roles = [
        ((symbol,), (count,), cost) for symbol, count, cost in zip(symbols, proportions, costs, strict=True)
    ]
    for i, (player, (count,), cost) in enumerate(roles):
        for multiple in range(1, MAX_MULTIPLE + 1):
            total = count * multiple
            others = [(names, (n[0] * multiple,), one) for names, n, one in (*roles[:i], *roles[i + 1 :])]
            for part in range(1, total // 2 + 1):
                if math.gcd(part, total, *(n[0] for _, n, _ in others)) == 1:
                    shares = ((part, cost * (part / total)), (total - part, cost * (1 - part / total)))
                    yield _pattern([*others, *((player, (n,), one) for n, one in shares)])
    for i, j in itertools.combinations(range(len(roles)), 2):
        (first, n, one), (second, m, other) = roles[i], roles[j]
        others = [role for k, role in enumerate(roles) if k not in {i, j}]
        yield _pattern([*others, ((*first, *second), (*n, *m), one + other)])


def _pattern(roles: Sequence[tuple[tuple[str, ...], tuple[int, ...], NDArray[np.float32]]]) -> Pattern:
    """Return roles (players, counts, costs) in the order of their shares."""
    order = sorted(roles, key=lambda role: sum(role[1]))
    divisor = math.gcd(*(sum(counts) for _, counts, _ in order))
    return Pattern(
        tuple(sum(counts) // divisor for _, counts, _ in order),
        tuple(players for players, _, _ in order),
        tuple(counts for _, counts, _ in order),
        np.array([costs for _, _, costs in order]),
    )


def _of_pattern(
    library: Library, pattern: Pattern, n_atoms: int, wanted: Filter
) -> Iterator[tuple[float, int, tuple[str, ...]]]:
    """Yield distance, row, and element on each position, of the nearest known crystals of a pattern.

    Args:
        n_atoms: of a formula unit of the composition.
    """
    start, end = library.range_of(pattern.proportions)
    if start == end:
        return
    # An element on two roles of equal counts is there twice, in either order.
    orders = list(
        {
            tuple(pattern.players[i] for i in order): order for order in assignments(pattern.proportions)
        }.values()
    )
    distances = role_distances(library.numbers_of(pattern.proportions), pattern.costs, orders)
    distances[distances > FARTHEST] = np.inf
    codes = library.codes[start:end]
    for order, index in nearest_of(distances, N_NEAREST):
        prototype = library.prototype(int(codes[index]))
        if not _accepts(wanted, prototype, n_atoms):
            continue
        for species in _species(prototype, pattern, orders[order]):
            yield float(distances[order, index]), start + index, species


def _accepts(wanted: Filter, prototype: CrystalType, n_atoms: int) -> bool:
    """Return whether crystals of n_atoms in a formula unit, made of a prototype, have all that is wanted."""
    if wanted.z is not None and prototype.n_atoms != wanted.z * n_atoms:
        return False
    return wanted._replace(z=None, space_group=None).accepts(prototype)


def _species(prototype: CrystalType, pattern: Pattern, order: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yield all ways to put elements on the positions of a prototype; role k is that of order[k]."""
    group = space_groups.get(prototype.space_group)
    species = [pattern.players[order[role]][0] for role, _ in prototype.positions]
    shared = next((i for i, players in enumerate(pattern.players) if len(players) > 1), None)
    if shared is None:
        yield tuple(species)
        return
    places = [i for i, (role, _) in enumerate(prototype.positions) if order[role] == shared]
    n, m = pattern.counts[shared]
    sizes = [group.wyckoff[prototype.positions[i][1]].multiplicity for i in places]
    if len(places) > MAX_POSITIONS:
        return
    for taken in itertools.product((False, True), repeat=len(places)):
        if sum(itertools.compress(sizes, taken)) * (n + m) == sum(sizes) * m:
            chosen = set(itertools.compress(places, taken))
            yield tuple(pattern.players[shared][1] if i in chosen else one for i, one in enumerate(species))
