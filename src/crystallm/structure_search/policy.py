"""Policies of a search: the protocol, and plain sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from crystallm.crystallography.space_groups import Floats
from crystallm.structure_search import mcts
from crystallm.structure_search.prefixes import Ids


@dataclass(frozen=True)
class SearchPrompt:
    """A prompt, where a search may begin.

    Attributes:
        weight: its share among those of a search.
    """

    prompt: Ids
    weight: float


@dataclass(frozen=True)
class Proposal:
    """Where to write.

    Attributes:
        root: number of the prompt that it begins with.
        move: how it was found, one word: `sample`, `tree`, `redraw`, `change` or `fit`.
    """

    ids: Ids
    root: int
    move: str = "sample"
    node: mcts.Node | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Outcome:
    """What came of a text that was written behind a proposal.

    Attributes:
        energy: eV per atom; None where it is not valid, or has none.
        penalty: the reward where there is no energy, from -1 to 0.
    """

    ids: Ids
    energy: float | None
    penalty: float
    known: bool = False


class Policy(Protocol):
    """Where to write next."""

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Beginnings of a round."""

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Take note of what came of a round: for each proposal the texts written behind it."""


def random_stream(seed: int, simulation: int) -> np.random.Generator:
    """The random stream of a policy for one simulation, apart from those of the texts."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, 2**63 + simulation], dtype=np.uint64)))


class Sampling:
    """Plain sampling, prompts by their weights."""

    def __init__(self, seed: int, roots: Sequence[SearchPrompt]) -> None:
        self._seed = seed
        self._roots = roots
        self._weights = [root.weight for root in roots]

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Beginnings of a round; see `Policy`."""
        return [self.one(random_stream(self._seed, number)) for number in range(first, first + n)]

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Nothing is learned."""

    def one(self, random: np.random.Generator) -> Proposal:
        """A prompt."""
        place = drawn(self._weights, random)
        return Proposal(self._roots[place].prompt, place)


def drawn(weights: Sequence[float] | Floats, random: np.random.Generator) -> int:
    """A place, with these weights."""
    bounds = np.cumsum(weights)
    place = int(np.searchsorted(bounds, random.random() * bounds[-1], side="right"))
    return min(place, len(bounds) - 1)
