"""How readily one element replaces another in a crystal.

Elements are points in a space. The distance of two crystals of equal proportions, with their roles matched,
is

    d = sum_i w_i |p(a_i) - p(b_i)|,  w_i ~ f_i^s exp(t [i is the most electronegative]),  sum_i w_i = 1

with f_i the share of role i in the atoms of the requested crystal. The nearest crystals are the relatives of
a composition; `scorer` says how probable they make a candidate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from crystallm.crystallography import elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


SAME = 1e-4
"""Distance below which a crystal has the requested formula."""


@dataclass(frozen=True)
class Similarity:
    """Points of the elements, and how distances count.

    Attributes:
        points: of each element by symbol.
        share_power: s of the head of this module.
        anion_weight: t of the head of this module.
    """

    points: dict[str, tuple[float, ...]]
    share_power: float
    anion_weight: float

    @cached_property
    def table(self) -> Floats:
        """Distance of two elements by atomic number, [119, 119]; infinite for an unknown element."""
        table = np.full((119, 119), np.inf, np.float32)
        numbers = [elements.get(symbol).number for symbol in self.points]
        points = np.array(list(self.points.values()))
        distances = np.linalg.norm(points[:, None, :] - points[None, :, :], axis=-1)
        table[np.ix_(numbers, numbers)] = distances
        return table

    def weights(self, proportions: Sequence[int], symbols: Sequence[str]) -> Floats:
        """Return the weight of each role of the requested crystal, [n_roles]."""
        shares = np.array(proportions) / sum(proportions)
        weights = shares**self.share_power
        weights[symbols.index(elements.electronegativity_order(symbols)[-1])] *= np.exp(self.anion_weight)
        result: Floats = (weights / weights.sum()).astype(np.float32)
        return result


@cache
def default_similarity() -> Similarity:
    """Return the fitted similarity."""
    content = json.loads((files("crystallm.references") / "data" / "similarity.json").read_text("ascii"))
    points = {symbol: tuple(point) for symbol, point in content.pop("points").items()}
    return Similarity(points, **content)
