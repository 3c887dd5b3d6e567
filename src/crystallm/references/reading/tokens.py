"""The tokens that a network reads before a crystal: what its relatives make of the composition.

Each relative, with the elements of the composition in place of its own, is written in `orbits` from the space
group to the end; its composition would be that of the crystal. The most probable one stands last, beside the
crystal. Crystals of the formula itself are no relatives here: a network that read them would learn to copy
the answer.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from crystallm.orbits import language
from crystallm.references.candidates import Filter, find_candidates
from crystallm.references.lookup import likeliest
from crystallm.references.scorer import default_scorer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.crystallography.formula import Cell
    from crystallm.references.library import Library

MAX_TOKENS = 384
"""Tokens of all relatives together, at most: the crystal must fit the context too."""
_CELLS_KEPT = 1024


class RelativesReader:
    """Looks up what a network reads before the crystals of a cell, and keeps it for the next ones.

    Args:
        library: of known crystals; None: nothing is read.
        n: number of relatives of a cell, at most.
    """

    def __init__(self, library: Library | None, n: int) -> None:
        self._library, self._n = library, n
        self._kept = lru_cache(_CELLS_KEPT)(self._look_up)

    def tokens(self, cell: Cell | None) -> tuple[int, ...]:
        """Return the tokens of the relatives of a cell; () where the cell is not known."""
        return () if cell is None else self._kept(cell.composition)

    def _look_up(self, composition: tuple[tuple[str, int], ...]) -> tuple[int, ...]:
        if self._library is None or not self._n:
            return ()
        return tuple(relatives_of(self._library, dict(composition), self._n))


def relatives_of(library: Library, counts: Mapping[str, int], n: int) -> list[int]:
    """Return the token ids of the n best relatives of a composition, the best one last; [] if it has none.

    Args:
        library: of known crystals.
        counts: atoms of each element in the conventional cell, which relatives must have too.
        n: largest number of relatives, at least 1.
    """
    wanted = Filter(z=math.gcd(*counts.values()))
    candidates = find_candidates(library, counts, wanted, other_formulas=True)
    probabilities = default_scorer().probabilities(candidates)
    found: list[list[int]] = []
    room = MAX_TOKENS
    for _, made in likeliest(library, candidates, probabilities):
        ids = language.to_ids(made)[len(language.prompt(made.composition)) :]
        if len(ids) <= room:
            found.append(ids)
            room -= len(ids)
            if len(found) == n:
                break
    return [token for ids in reversed(found) for token in ids]
