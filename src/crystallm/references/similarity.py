"""How readily one element replaces another in a crystal.

Elements are points in a space. The distance of two crystals of equal proportions, with their roles matched,
is

    d = sum_i w_i |p(a_i) - p(b_i)|,  w_i ~ f_i^s exp(t [i is the most electronegative]),  sum_i w_i = 1

with f_i the share of role i in the atoms of the requested crystal. A relative at the distance d has
exp(-d / `width`) votes. One of the requested formula, at d = 0, has `own_weight` of that: what is known of a
compound already is often not the structure wanted. A candidate with the share s of all votes, where the
nearest relative of another formula is at d, is right with the probability

    p = s / (1 + exp((d - `reach`) / `falloff`))

Of 800 crystals of MP-20's training split that were not used to fit the two, each looked up among all others,
those whose first candidate had p within 0 to 0.2, 0.2 to 0.4, ... were right in 14, 19, 44, 64 and 95 %.
"""

from __future__ import annotations

import json
import math
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
        width: of the votes.
        own_weight: factor of the votes of crystals of the formula itself.
        reach: distance at which a relative is right as often as not, where it has all votes.
        falloff: how fast that changes with the distance.
    """

    points: dict[str, tuple[float, ...]]
    share_power: float
    anion_weight: float
    width: float
    own_weight: float = 1.0
    reach: float = 1.0
    falloff: float = 0.3

    def votes(self, distance: float) -> float:
        """Return the votes of a relative at a distance."""
        votes = math.exp(-distance / self.width)
        return self.own_weight * votes if distance < SAME else votes

    def trust(self, distance: float) -> float:
        """Return the probability that any candidate is right, by the distance of the nearest relative."""
        return 1 / (1 + math.exp(min(50.0, (distance - self.reach) / self.falloff)))

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
