"""What the relatives of a composition make of it: candidates, and what is known of each.

Relatives are known crystals of the same proportions, with every matching of roles that have equal counts, the
nearest ones (see `similarity`). Those that put the elements in the same way onto the positions of one
prototype, at like coordinates, stand for one candidate; the nearest of them gives cell and coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from crystallm.crystallography import elements, space_groups
from crystallm.orbits.canonical import STEPS
from crystallm.references.prototypes import arranged, assignments, roles_of
from crystallm.references.similarity import SAME, default_similarity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from crystallm.references.library import Library
    from crystallm.references.prototypes import CrystalType, Positions
    from crystallm.references.similarity import Similarity

    Floats = NDArray[np.float32]

N_RELATIVES = 300
"""Nearest relatives that are taken, at most."""
SAME_COORDINATES, SAME_RATIO = 60, 40
"""Largest differences within a candidate: of coordinates, in thousandths of a cell edge, and of the steps of
cell ratios and angles (see `orbits.description`)."""
AMORPHOUS_Z, AMORPHOUS_ATOMS = 6, 30
"""A cell of P1 with this many formula units and atoms is a model of a glass, not a crystal: it is a relative
only where P1 is requested."""
N_FEATURES, N_PROTOTYPE_FEATURES = 10, 5
"""Numbers that describe a candidate, see `Candidates.features`; the first of them describe its prototype."""


class Filter(NamedTuple):
    """What all candidates must have; None: any.

    Attributes:
        space_group: number.
        z: formula units in the conventional cell.
        max_atoms: largest number of atoms in the conventional cell.
        primitive_atoms: number of atoms in the primitive cell.
    """

    space_group: int | None = None
    z: int | None = None
    max_atoms: int | None = None
    primitive_atoms: int | None = None

    def accepts(self, prototype: CrystalType) -> bool:
        """Return whether a prototype has all that is wanted."""
        return (
            (self.space_group is None or prototype.space_group == self.space_group)
            and (self.z is None or prototype.z == self.z)
            and (self.max_atoms is None or prototype.n_atoms <= self.max_atoms)
            and (self.primitive_atoms is None or prototype.n_primitive == self.primitive_atoms)
            and (self.space_group == 1 or not _is_amorphous(prototype))
        )


def _is_amorphous(prototype: CrystalType) -> bool:
    return prototype.space_group == 1 and prototype.z >= AMORPHOUS_Z and prototype.n_atoms >= AMORPHOUS_ATOMS


@dataclass(frozen=True, slots=True)
class Candidates:
    """The relatives of a composition, and the candidates that they stand for.

    Attributes:
        numbers: atomic number of the element of each role, [n_roles].
        shares: of the roles in the atoms, [n_roles].
        weights: of the roles in distances, [n_roles]; see `similarity`.
        relatives: atomic numbers of the elements of the relatives on the same roles, nearest relative first,
            [n_relatives, n_roles].
        distances: of the relatives, [n_relatives].
        members: index of the candidate of each relative, [n_relatives].
        rows: of the nearest relatives in the library, [n_candidates].
        names: element of each role of the nearest relative, [n_candidates, n_roles].
        groups: numbers of the space groups, [n_candidates].
        features: [n_candidates, N_FEATURES]: atoms of the primitive cell (half their logarithm), orbits / 5,
            free coordinates / 5, free cell parameters / 3, crystals of the prototype in the library (a third
            of the logarithm), relatives (logarithm), distance of the nearest relative of another formula less
            the least one of all candidates, 5 times the mismatch of radii, twice the logarithm of the ratio
            of atomic volumes, and whether a relative has the formula itself.
        energies: least energy of the relatives of the formula itself, eV/atom, [n_candidates]; NaN where
            there is none, or it is not known.
    """

    numbers: NDArray[np.uint8]
    shares: Floats
    weights: Floats
    relatives: NDArray[np.uint8]
    distances: Floats
    members: NDArray[np.intp]
    rows: list[int]
    names: list[tuple[str, ...]]
    groups: NDArray[np.intp]
    features: Floats
    energies: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def known(self) -> NDArray[np.intp]:
        """Return how many crystals of the formula itself stand for each candidate, [n_candidates]."""
        return np.bincount(self.members[self.distances < SAME], minlength=len(self))

    def without_known(self) -> Self:
        """Return the same candidates without the relatives of the formula itself; some may have none left."""
        other = self.distances >= SAME
        members, distances = self.members[other], self.distances[other]
        features = self.features.copy()
        features[:, N_PROTOTYPE_FEATURES : N_PROTOTYPE_FEATURES + 2] = _relative_features(
            members, distances, len(self)
        )
        features[:, -1] = 0
        return replace(
            self, relatives=self.relatives[other], distances=distances, members=members, features=features
        )


def find_candidates(
    library: Library,
    counts: Mapping[str, int],
    wanted: Filter,
    *,
    without: int | None = None,
    other_formulas: bool = False,
    similarity: Similarity | None = None,
    n_relatives: int = N_RELATIVES,
) -> Candidates:
    """Return the candidates for a composition, that of the nearest relative first.

    Args:
        counts: atoms of each element, in any number of formula units.
        wanted: what all candidates must have.
        without: row of the library that is left out.
        other_formulas: leave out the crystals of the formula itself.
        similarity: of elements; the fitted one by default.
        n_relatives: largest number of relatives.
    """
    proportions, symbols = roles_of(counts)
    similarity = similarity or default_similarity()
    orders = list(assignments(proportions))
    weights = similarity.weights(proportions, symbols)
    costs = element_costs(proportions, symbols, similarity)
    distances = role_distances(library.numbers_of(proportions), costs, orders)
    start, end = library.range_of(proportions)
    distances[:, ~_accepted(library, start, end, wanted)] = np.inf
    if without is not None and start <= without < end:
        distances[:, without - start] = np.inf
    if other_formulas:
        distances[:, (distances < SAME).any(axis=0)] = np.inf
    nearest = nearest_of(distances, n_relatives)
    known = library.numbers_of(proportions)
    relatives = np.zeros((len(nearest), len(symbols)), np.uint8)
    for i, (order, index) in enumerate(nearest):
        relatives[i, list(orders[order])] = known[index]
    members, leaders = _grouped(library, start, nearest, orders)
    near = np.array([distances[order, index] for order, index in nearest], np.float32)
    rows = [start + nearest[leader][1] for leader in leaders]
    numbers = np.array([elements.get(symbol).number for symbol in symbols], np.uint8)
    shares = (np.array(proportions) / sum(proportions)).astype(np.float32)
    return Candidates(
        numbers,
        shares,
        weights,
        relatives,
        near,
        members,
        rows,
        [tuple(symbols[i] for i in orders[nearest[leader][0]]) for leader in leaders],
        np.array([library.prototype(int(library.codes[row])).space_group for row in rows], np.intp),
        np.concatenate(
            [
                _prototype_features(library, rows, without),
                _relative_features(members, near, len(leaders)),
                _element_features(numbers, relatives[leaders], shares),
                (np.bincount(members[near < SAME], minlength=len(leaders)) > 0)[:, None],
            ],
            axis=1,
        ).astype(np.float32),
        _known_energies(
            library.energies[[start + index for _, index in nearest]], members, near, len(leaders)
        ),
    )


def same_arrangement(library: Library, row: int, candidates: Candidates, i: int) -> bool:
    """Return whether a candidate has the atoms of a row on the same positions, at like coordinates."""
    group = library.prototype(int(library.codes[row])).space_group
    if candidates.groups[i] != group:
        return False
    own, other = (library.member(one) for one in (row, candidates.rows[i]))
    ranks = {symbol: rank for rank, symbol in enumerate(own.elements)}
    names = tuple(ranks[symbol] for symbol in candidates.names[i])
    if arranged(group, other.prototype.positions, names) != arranged(
        group, own.prototype.positions, tuple(range(len(own.elements)))
    ):
        return False
    n_cell = len(space_groups.get(group).free_cell)
    return _alike(library.parameters(row), library.parameters(candidates.rows[i]), n_cell)


def _grouped(
    library: Library, start: int, nearest: Sequence[tuple[int, int]], orders: Sequence[tuple[int, ...]]
) -> tuple[NDArray[np.intp], list[int]]:
    """Return the candidate of each relative, and the relative that each candidate is made of."""
    groups: dict[tuple[int, Positions], list[int]] = {}
    leaders: list[int] = []
    members = np.zeros(len(nearest), np.intp)
    parameters: list[NDArray[np.int16]] = []
    for i, (order, index) in enumerate(nearest):
        prototype = library.prototype(int(library.codes[start + index]))
        key = (prototype.space_group, arranged(prototype.space_group, prototype.positions, orders[order]))
        own = library.parameters(start + index)
        n_cell = len(space_groups.get(prototype.space_group).free_cell)
        group = groups.setdefault(key, [])
        found = next((c for c in group if _alike(parameters[c], own, n_cell)), None)
        if found is None:
            found = len(leaders)
            group.append(found)
            leaders.append(i)
            parameters.append(own)
        members[i] = found
    return members, leaders


def _prototype_features(library: Library, rows: Sequence[int], without: int | None) -> Floats:
    """Return what the prototypes of candidates are, [n_candidates, 5]."""
    left_out = None if without is None else int(library.codes[without])
    result = np.zeros((len(rows), N_PROTOTYPE_FEATURES), np.float32)
    for i, row in enumerate(rows):
        code = int(library.codes[row])
        prototype = library.prototype(code)
        group = space_groups.get(prototype.space_group)
        n_free = sum(len(group.wyckoff[position].free) for _, position in prototype.positions)
        result[i] = (
            math.log(prototype.n_primitive) / 2,
            len(prototype.positions) / 5,
            n_free / 5,
            len(group.free_cell) / 3,
            math.log(library.prototype_sizes[code] - (code == left_out)) / 3,
        )
    return result


def _relative_features(members: NDArray[np.intp], distances: Floats, n: int) -> Floats:
    """Return how many relatives stand for candidates, and how near they are, [n_candidates, 2]."""
    counts = np.bincount(members, minlength=n)
    other = np.full(n, np.inf)
    np.minimum.at(other, members, np.where(distances < SAME, np.inf, distances))
    finite, gaps = np.isfinite(other), np.ones(n)
    gaps[finite] = other[finite] - other.min(initial=np.inf)
    return np.stack([np.log(np.maximum(counts, 1)), gaps], axis=1).astype(np.float32)


def _element_features(numbers: NDArray[np.uint8], relatives: NDArray[np.uint8], shares: Floats) -> Floats:
    """Return how elements differ in size from those of the nearest relatives, [n_candidates, 2].

    The first is the standard deviation, over the atoms, of the logarithms of the ratios of atomic radii. The
    second is the logarithm of the ratio of the sums of atomic volumes.
    """
    radii, volumes = _sizes()
    ratios = np.log(radii[numbers])[None] - np.log(radii[relatives])
    spread = np.sqrt(((ratios - (ratios * shares).sum(1, keepdims=True)) ** 2 * shares).sum(1))
    volume = np.log((volumes[numbers] * shares).sum() / (volumes[relatives] * shares).sum(1))
    return np.stack([5 * spread, 2 * volume], axis=1).astype(np.float32)


def _known_energies(energies: Floats, members: NDArray[np.intp], distances: Floats, n: int) -> Floats:
    """Return the least energy of the relatives of the formula itself, [n_candidates]; NaN for none."""
    result = np.full(n, np.nan, np.float32)
    known = distances < SAME
    np.fmin.at(result, members[known], energies[known])
    return result


@cache
def _sizes() -> tuple[Floats, Floats]:
    """Return radii (Å) and volumes (Å^3) of atoms by atomic number, [119] each; 1.5 and 1 where unknown."""
    radii, volumes = np.full(119, 1.5, np.float32), np.ones(119, np.float32)
    for symbol in elements.symbols():
        element = elements.get(symbol)
        radii[element.number] = element.atomic_radius or 1.5
        volumes[element.number] = element.volume
    return radii, volumes


def element_costs(
    proportions: Sequence[int], symbols: Sequence[str], similarity: Similarity | None = None
) -> Floats:
    """Return what any element in the place of each of the symbols adds to a distance, [n_roles, 119].

    Args:
        proportions: of the symbols.
        similarity: of elements; the fitted one by default.
    """
    similarity = similarity or default_similarity()
    numbers = [elements.get(symbol).number for symbol in symbols]
    result: Floats = similarity.weights(proportions, symbols)[:, None] * similarity.table[numbers]
    return result


def role_distances(known: NDArray[np.uint8], costs: Floats, orders: Sequence[Sequence[int]]) -> Floats:
    """Return the distances of known crystals of the same proportions, [n_orders, n_crystals].

    Args:
        known: atomic numbers of the elements on their roles, [n_crystals, n_roles].
        costs: of each element of a composition, see `element_costs`.
        orders: index of the element on each role.
    """
    # [n_roles, n_roles, n_crystals]: distance of each element from each role
    terms = np.array([[cost[known[:, role]] for role in range(len(costs))] for cost in costs])
    return np.array([sum(terms[i, role] for role, i in enumerate(order)) for order in orders])


def _accepted(library: Library, start: int, end: int, wanted: Filter) -> NDArray[np.bool_]:
    """Return which rows of a library have what is wanted, [end - start]."""
    codes, inverse = np.unique(library.codes[start:end], return_inverse=True)
    good = [wanted.accepts(library.prototype(code)) for code in codes.tolist()]
    return np.array(good, bool)[inverse]


def nearest_of(distances: Floats, n: int) -> list[tuple[int, int]]:
    """Return order and crystal of the smallest finite distances, nearest first."""
    flat = distances.ravel()
    n = min(n, len(flat))
    rows = np.argpartition(flat, n - 1)[:n] if n < len(flat) else np.arange(n)
    rows = rows[np.lexsort((rows, flat[rows]))]
    rows = rows[np.isfinite(flat[rows])]
    return [
        (int(order), int(index))
        for order, index in zip(*np.unravel_index(rows, distances.shape), strict=True)
    ]


def _alike(first: NDArray[np.int16], second: NDArray[np.int16], n_cell: int) -> bool:
    """Return whether crystals of equal arrangements have like coordinates and cell ratios."""
    difference = np.abs(first - second)
    if len(difference) == 1:
        return True
    if (difference[1:n_cell] > SAME_RATIO).any():
        return False
    apart = difference[n_cell:]
    return bool((np.minimum(apart, STEPS - apart) <= SAME_COORDINATES).all())
