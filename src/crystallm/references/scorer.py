"""How probable a candidate is: a small network over the relatives of a composition.

With t_i the element of role i, r_i that of a relative, w_i the weight of the role and d the distance of the
relative (see `similarity`), its votes are

    v = exp(-a d + b [d = 0] + f(sum_i w_i g(|p(t_i) - p(r_i)|, q(t_i) - q(r_i), q(t_i), ...)))

p are fitted points of the elements, q their group, row, electronegativity, radius, Mendeleev number, atomic
volume and block. A candidate c has the score

    s(c) = log(sum of v over its relatives) + h(space group, mean of p, features of c)

(see `candidates.Candidates`), and the case that no candidate is right a score of its own, from the mean of p
and the distance of the nearest relative. The softmax of all of these, times a fitted sharpness, is q: the
probability that a crystal which is in no library is like the candidate. f, g and h are perceptrons with SiLU.
`scripts/fit_scorer.py` fits them to crystals of a library, each looked up among all others.

A requested crystal may also be one of the known crystals of its formula, with the probability k. Let
n known crystals of the formula itself stand for candidate c, and q' be q without all of these. Then

    p(c) = (1 - k) q'(c)             if n = 0,
    p(c) = k u(c) / sum of all u     else, with u = (q'(c) + `EACH_KNOWN` n) exp(-e / `WARMTH`),

where e is the energy of the lowest of the n above the lowest of the formula, 0 where the library has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystallm.references.similarity import SAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from crystallm.references.candidates import Candidates

    Floats = NDArray[np.float32]

WEIGHTS = Path(str(files("crystallm.references"))) / "data" / "scorer.safetensors"
"""Weights of the scorer of this package."""
FARTHEST = 3.0
"""Distance that stands for no relative of another formula."""
EACH_KNOWN = 0.1
"""What a known crystal of the formula counts beside what its relatives of other formulas say of it."""
WARMTH = 0.03
"""How fast known crystals of higher energy count less, eV/atom: about the error of CHGNet."""


@dataclass(frozen=True)
class Scorer:
    """The network.

    Attributes:
        weights: by name, as `scripts/fit_scorer.py` writes them.
    """

    weights: Mapping[str, Floats]

    def probabilities(self, candidates: Candidates, *, known_share: float = 0.0) -> Floats:
        """Return the probability of each candidate that it is right, [n_candidates]; the sum is below 1.

        Args:
            candidates: of a composition.
            known_share: k of the head of this module.
        """
        n = len(candidates)
        if not n:
            return np.zeros(0, np.float32)
        n_known = candidates.known()
        if not known_share or not n_known.any():
            return self._of_unknown(candidates)
        others = self._of_unknown(candidates.without_known())
        among = (others + EACH_KNOWN * n_known) * (n_known > 0)
        if np.isfinite(candidates.energies).any():
            above = candidates.energies - np.nanmin(candidates.energies)
            among *= np.exp(-np.nan_to_num(above, nan=0.0) / WARMTH)
        mixed = np.where(n_known > 0, known_share * among / among.sum(), (1 - known_share) * others)
        return mixed.astype(np.float32)

    def _of_unknown(self, candidates: Candidates) -> Floats:
        """Return the probability of each candidate for a crystal that is in no library, [n_candidates]."""
        n = len(candidates)
        points = self.weights["points"]
        mean = (points[candidates.numbers] * candidates.shares[:, None]).sum(0)
        votes = self._votes(candidates)
        most = np.full(n, -1e9, np.float32)
        np.maximum.at(most, candidates.members, votes)
        total = np.full(n, 1e-30, np.float32)
        np.add.at(total, candidates.members, np.exp(votes - most[candidates.members]))
        context = np.broadcast_to(mean, (n, len(mean)))
        known = np.concatenate(
            [self.weights["groups"][candidates.groups], context, candidates.features], axis=1
        )
        scores = most + np.log(total) + self._perceptron("candidate", known)[:, 0]
        exponents = np.append(scores, self._none(candidates, mean)) * self.weights["sharpness"][0]
        exponents = np.exp(exponents - exponents.max())
        result: Floats = (exponents[:-1] / exponents.sum()).astype(np.float32)
        return result

    def _votes(self, candidates: Candidates) -> Floats:
        """Return the logarithms of the votes of relatives, [n_relatives]."""
        points, known = self.weights["points"], self.weights["descriptors"]
        own, other = candidates.numbers, candidates.relatives
        n, n_roles = other.shape
        anion = np.zeros(n_roles, np.float32)
        anion[self.weights["electronegativities"][own].argmax()] = 1
        columns = [
            np.abs(points[own][None] - points[other]),
            known[own][None] - known[other],
            np.broadcast_to(known[own][None], (n, n_roles, known.shape[1])),
            np.broadcast_to(candidates.shares[None, :, None], (n, n_roles, 1)),
            np.broadcast_to(anion[None, :, None], (n, n_roles, 1)),
        ]
        pairs = self._perceptron("pair", np.concatenate(columns, axis=2))
        pooled = (pairs * candidates.weights[None, :, None]).sum(1)
        pooled = (pooled - pooled.mean(1, keepdims=True)) / np.sqrt(pooled.var(1, keepdims=True) + 1e-5)
        pooled = _silu(pooled * self.weights["norm.weight"] + self.weights["norm.bias"])
        near = candidates.distances
        result: Floats = (
            -near * self.weights["scale"][0]
            + (near < SAME) * self.weights["own"][0]
            + self._perceptron("pool", pooled)[:, 0]
        )
        return result

    def _none(self, candidates: Candidates, mean: Floats) -> Floats:
        """Return the score of the case that no candidate is right, [1]."""
        same = candidates.distances < SAME
        nearest = min([FARTHEST, *candidates.distances[~same].tolist()])
        facts = [
            nearest,
            np.log(max(len(candidates.distances), 1)) / 3,
            np.log(len(candidates)) / 2,
            float(same.any()),
            candidates.shares.max(),
        ]
        found = self._perceptron("none", np.append(mean, facts).astype(np.float32)[None])
        return np.asarray(found[0] - nearest * self.weights["scale"])

    def _perceptron(self, name: str, values: Floats) -> Floats:
        """Return linear layers with SiLU between them."""
        layer = 0
        while f"{name}.{layer}.weight" in self.weights:
            if layer:
                values = _silu(values)
            values = values @ self.weights[f"{name}.{layer}.weight"].T + self.weights[f"{name}.{layer}.bias"]
            layer += 1
        return values


def _silu(values: Floats) -> Floats:
    result: Floats = values / (1 + np.exp(-values))
    return result


@cache
def default_scorer() -> Scorer:
    """Return the fitted scorer."""
    return load_scorer(WEIGHTS)


def load_scorer(path: Path) -> Scorer:
    """Return the scorer in a file."""
    from safetensors.numpy import load_file

    return Scorer({name: values.astype(np.float32) for name, values in load_file(path).items()})
