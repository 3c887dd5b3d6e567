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
    """A prompt of a search.

    Attributes:
        prompt: tokens.
        weight: its share among the prompts of a search.
    """

    prompt: Ids
    weight: float


@dataclass(frozen=True)
class Proposal:
    """A prefix to sample from.

    Attributes:
        ids: the prefix, or a whole sequence.
        root: index of its prompt.
        move: how it was chosen: `relative`, `sample`, `tree`, `resample`, `mutate` or `fit`.
        node: its node of the tree, if there is one.
    """

    ids: Ids
    root: int
    move: str = "sample"
    node: mcts.Node | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Outcome:
    """Result of a sequence that was sampled from a proposal.

    Attributes:
        ids: of the sequence.
        energy: eV per atom; None if it is not valid, or has none.
        invalid_reward: the reward if there is no energy, from -1 to 0.
        is_duplicate: whether an equal crystal was sampled before.
    """

    ids: Ids
    energy: float | None
    invalid_reward: float
    is_duplicate: bool = False


class Policy(Protocol):
    """Proposes prefixes, a round of several at a time, and learns from their outcomes.

    Proposals depend on the options, the seed and the learned outcomes only, so that a search resumes from
    its log.
    """

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Return the prefixes of a round, the first of which has the number `first`."""

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Learn the outcomes of a round: for each proposal those of the sequences sampled from it."""


def random_stream(seed: int, simulation: int) -> np.random.Generator:
    """Return the random stream of a policy for one simulation, independent of those of the samples."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, 2**63 + simulation], dtype=np.uint64)))


class Sampling:
    """Plain sampling, prompts by their weights."""

    def __init__(self, seed: int, roots: Sequence[SearchPrompt]) -> None:
        self._seed = seed
        self._roots = roots
        self._weights = [root.weight for root in roots]

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Return the prompts of a round; see `Policy`."""
        return [self.propose_one(random_stream(self._seed, number)) for number in range(first, first + n)]

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Learn nothing."""

    def propose_one(self, random: np.random.Generator) -> Proposal:
        """Return a prompt."""
        index = draw_index(self._weights, random)
        return Proposal(self._roots[index].prompt, index)


def draw_index(weights: Sequence[float] | Floats, random: np.random.Generator) -> int:
    """Draw an index with these weights."""
    bounds = np.cumsum(weights)
    index = int(np.searchsorted(bounds, random.random() * bounds[-1], side="right"))
    return min(index, len(bounds) - 1)
