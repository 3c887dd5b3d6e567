"""Look up the relatives of a composition, and rank what they make of it.

Candidates (see `candidates`) are ranked by the probability that they are right (see `scorer`). With the rest,
that none of them is right, a derivative d (see `derivatives`) has the probability

    p(d) = `DERIVED_SHARE` v(d) / (`FEW_VOTES` + sum of all v) (1 - sum of the probabilities of candidates)

where v are its votes. Reads a library; does not depend on a language model.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystallm.errors import TextError
from crystallm.references.candidates import Filter, find_candidates
from crystallm.references.derivatives import described, find_derivatives
from crystallm.references.prototypes import substituted
from crystallm.references.scorer import default_scorer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from crystallm.orbits.description import Description
    from crystallm.references.candidates import Candidates
    from crystallm.references.library import Library
    from crystallm.references.scorer import Scorer

DERIVED_SHARE, FEW_VOTES = 0.4, 0.2
"""How probable a derivative is, see the head of this module; chosen on the val split of the corpus."""
LEAST_SHARE = 0.02
"""Where all derivatives together are less probable, none is made: it would take time for nothing."""
N_DERIVED = 4
"""Derivatives of a composition, at most: the search for their symmetry takes as long as all candidates."""
KNOWN_SHARE = 0.5
"""How probable it is that the requested crystal is one of the known crystals of its formula, where there are
any. A guess: some ask for what is known, others for what is not."""


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
        n_relatives: number of relatives that stand for it.
        probability: that it is right, see `scorer`.
    """

    description: Description
    relative: Relative
    n_relatives: int
    probability: float


def find_analogues(
    library: Library,
    counts: Mapping[str, int],
    n: int,
    *,
    space_group: int | None = None,
    z: int | None = None,
    max_atoms: int | None = None,
    primitive_atoms: int | None = None,
    scorer: Scorer | None = None,
) -> list[Analogue]:
    """Return the best candidates for a composition, best first.

    Args:
        library: of known crystals.
        counts: atoms of each element, in any number of formula units.
        n: largest number of candidates.
        space_group: number of the group that all must have; None: any.
        z: formula units in the conventional cell that all must have; None: any.
        max_atoms: largest number of atoms in the conventional cell; None: any.
        primitive_atoms: number of atoms in the primitive cell that all must have; None: any.
        scorer: of candidates; the fitted one by default.
    """
    wanted = Filter(space_group, z, max_atoms, primitive_atoms)
    candidates = find_candidates(library, counts, wanted)
    scorer = scorer or default_scorer()
    probabilities = scorer.probabilities(
        candidates, known_share=KNOWN_SHARE if library.holds_answers else 0.0
    )
    sizes = np.bincount(candidates.members, minlength=len(candidates))
    nearest = np.full(len(candidates), np.inf)
    np.minimum.at(nearest, candidates.members, candidates.distances)
    result: list[Analogue] = []
    for i, made in itertools.islice(likeliest(library, candidates, probabilities), n):
        relative = _relative(library, candidates.rows[i], float(nearest[i]))
        result.append(Analogue(made, relative, int(sizes[i]), float(probabilities[i])))
    rest = DERIVED_SHARE * max(0.0, 1.0 - float(probabilities.sum()))
    if rest > LEAST_SHARE and (len(result) < n or result[-1].probability < rest):
        least = result[-1].probability if len(result) == n else 0.0
        result += _derived(library, counts, wanted, rest, least)
        result.sort(key=lambda analogue: -analogue.probability)
    return result[:n]


def likeliest(
    library: Library, candidates: Candidates, probabilities: NDArray[np.float32]
) -> Iterator[tuple[int, Description]]:
    """Yield index and crystal of the candidates that can be made, the most probable first."""
    for i in np.argsort(-probabilities, kind="stable").tolist():
        try:
            made = substituted(library.member(candidates.rows[i]), candidates.names[i])
        except TextError:
            continue
        yield i, made


def _derived(
    library: Library, counts: Mapping[str, int], wanted: Filter, share: float, least: float
) -> Iterator[Analogue]:
    """Yield derivatives of more than the least probability; those of all add up to less than a share."""
    found = find_derivatives(library, counts, wanted)
    votes = FEW_VOTES + sum(one.votes for one in found)
    for one in found[:N_DERIVED]:
        probability = share * one.votes / votes
        if probability <= least:
            break
        made = described(library, one, wanted)
        if made is not None:
            yield Analogue(made, _relative(library, one.row, one.distance), one.n_relatives, probability)


def _relative(library: Library, row: int, distance: float) -> Relative:
    return Relative(library.id(row), library.source(row), library.formula(row), distance)
