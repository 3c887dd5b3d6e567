"""Look up the relatives of a composition, and rank what they make of it.

Relatives are all known crystals of the same proportions, with every matching of roles that have equal counts.
Those that put the elements in the same way onto the positions of one prototype, at like coordinates, stand
for one candidate: they vote for it (see `similarity`), and the nearest of them gives cell and coordinates.
Candidates are ranked by their votes. Reads a library; knows no networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystallm.crystallography import elements, space_groups
from crystallm.errors import TextError
from crystallm.orbits.canonical import STEPS
from crystallm.references.prototypes import arranged, assignments, roles_of, substituted
from crystallm.references.similarity import SAME, default_similarity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from crystallm.orbits.description import Description
    from crystallm.references.library import Library
    from crystallm.references.prototypes import Positions
    from crystallm.references.similarity import Similarity

N_RELATIVES = 400
"""Nearest relatives that vote, at most."""
SAME_COORDINATES, SAME_RATIO = 60, 40
"""Largest differences within a candidate: of coordinates, in thousandths of a cell edge, and of the steps of
cell ratios and angles (see `orbits.description`)."""


class Relative(NamedTuple):
    """A known crystal that a candidate is like.

    Attributes:
        id: in its collection.
        source: name of its collection.
        formula: reduced.
        distance: of its elements from those that replace them, see `similarity`.
    """

    id: str
    source: str
    formula: str
    distance: float


@dataclass(frozen=True, slots=True)
class Analogue:
    """A crystal of the composition, made of a known one by substitution.

    Attributes:
        description: of the crystal.
        relative: the nearest one, whose cell and coordinates it has.
        n_relatives: number of relatives that vote for it.
        votes: of them.
        probability: that it is right, see `similarity`.
    """

    description: Description
    relative: Relative
    n_relatives: int
    votes: float
    probability: float


@dataclass
class _Candidate:
    """Relatives that stand for one candidate; of the nearest, its row, assignment and distance."""

    row: int
    names: tuple[str, ...]
    parameters: NDArray[np.int16]
    distance: float
    votes: float = 0.0
    n: int = 0


def find_analogues(
    library: Library,
    counts: Mapping[str, int],
    n: int,
    *,
    space_group: int | None = None,
    z: int | None = None,
    max_atoms: int | None = None,
    similarity: Similarity | None = None,
) -> list[Analogue]:
    """Return the best candidates for a composition, best first.

    Args:
        library: of known crystals.
        counts: atoms of each element, in any number of formula units.
        n: largest number of candidates.
        space_group: number of the group that all must have; None: any.
        z: formula units in the conventional cell that all must have; None: any.
        max_atoms: largest number of atoms in the conventional cell; None: any.
        similarity: of elements; the fitted one by default.
    """
    proportions, symbols = roles_of(counts)
    similarity = similarity or default_similarity()
    wanted = _wanted(library, proportions, space_group, z, max_atoms)
    candidates = _vote(library, proportions, symbols, similarity, wanted)
    total = sum(candidate.votes for candidate in candidates)
    distances = [one.distance for one in candidates if one.distance > SAME] or [0.0]
    trust = similarity.trust(min(distances))
    result: list[Analogue] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.votes):
        if len(result) == n:
            break
        try:
            description = substituted(library.member(candidate.row), candidate.names)
        except TextError:
            continue
        relative = Relative(
            library.id(candidate.row),
            library.source(candidate.row),
            library.formula(candidate.row),
            candidate.distance,
        )
        probability = trust * candidate.votes / total
        result.append(Analogue(description, relative, candidate.n, candidate.votes, probability))
    return result


def _vote(
    library: Library,
    proportions: tuple[int, ...],
    symbols: tuple[str, ...],
    similarity: Similarity,
    wanted: NDArray[np.bool_],
) -> list[_Candidate]:
    """Return all candidates with their votes, nearest first."""
    orders = list(assignments(proportions))
    distances = _distances(library, proportions, symbols, similarity, orders)
    start, _ = library.range_of(proportions)
    distances[:, ~wanted] = np.inf
    groups: dict[tuple[int, Positions], list[_Candidate]] = {}
    for order, index in _nearest(distances, N_RELATIVES):
        row, distance = start + index, float(distances[order, index])
        prototype = library.prototype(int(library.codes[row]))
        key = (prototype.space_group, arranged(prototype.space_group, prototype.positions, orders[order]))
        parameters = library.parameters(row)
        group = groups.setdefault(key, [])
        n_cell = len(space_groups.get(prototype.space_group).free_cell)
        candidate = next((one for one in group if _alike(one.parameters, parameters, n_cell)), None)
        if candidate is None:
            candidate = _Candidate(row, tuple(symbols[i] for i in orders[order]), parameters, distance)
            group.append(candidate)
        candidate.votes += similarity.votes(distance)
        candidate.n += 1
    return [candidate for group in groups.values() for candidate in group]


def _distances(
    library: Library,
    proportions: Sequence[int],
    symbols: Sequence[str],
    similarity: Similarity,
    orders: Sequence[Sequence[int]],
) -> NDArray[np.float32]:
    """Return the distances of all crystals of some proportions, [n_orders, n_crystals]."""
    known = library.numbers_of(proportions)
    numbers = [elements.get(symbol).number for symbol in symbols]
    weights = similarity.weights(proportions, symbols)
    # [n_roles, n_roles, n_crystals]: distance of each element from each role
    terms = np.array(
        [
            [weights[i] * similarity.table[number][known[:, role]] for role in range(len(symbols))]
            for i, number in enumerate(numbers)
        ]
    )
    return np.array([sum(terms[i, role] for role, i in enumerate(order)) for order in orders])


def _wanted(
    library: Library,
    proportions: Sequence[int],
    space_group: int | None,
    z: int | None,
    max_atoms: int | None,
) -> NDArray[np.bool_]:
    """Return which crystals of some proportions have the space group, Z and at most `max_atoms`."""
    start, end = library.range_of(proportions)
    if space_group is None and z is None and max_atoms is None:
        return np.ones(end - start, bool)
    n_atoms = sum(proportions)
    codes, inverse = np.unique(library.codes[start:end], return_inverse=True)
    good = []
    for code in codes.tolist():
        prototype = library.prototype(code)
        good.append(
            (space_group is None or prototype.space_group == space_group)
            and (z is None or prototype.z == z)
            and (max_atoms is None or prototype.z * n_atoms <= max_atoms)
        )
    return np.array(good, bool)[inverse]


def _nearest(distances: NDArray[np.float32], n: int) -> list[tuple[int, int]]:
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
