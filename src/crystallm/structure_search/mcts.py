"""Monte Carlo tree search: which branch to follow, and rewards.

With n visits of a child, w the sum of their rewards, p its prior and N the visits of its parent, the child
with the largest score is followed:

    puct      w/n + c p sqrt(N) / (1 + n)
    uct       w/n + c sqrt(ln N / n)
    greedy    w/n; with probability c a random child

Children without visits come first, in random order (CrystaLLM, Nature Communications 15, 10570). A visit
without a reward yet counts with the lowest reward, so that parallel simulations take different branches.

The reward of a crystal of energy E is 1 / (1 + exp(k z)), z = (E - mean) / deviation over all energies so
far, including this one; 1/2 if they are all equal. Does not depend on networks or crystals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from crystallm.crystallography.space_groups import Floats
from crystallm.structure_search.prefixes import Ids

Rule = Literal["puct", "uct", "greedy"]
MIN_REWARD = -1.0
"""The lowest reward: of an invalid crystal, one without an energy, or a visit without a result yet."""
MAX_EXPONENT = 700.0
"""Larger exponents overflow."""


@dataclass(slots=True)
class Edge:
    """A choice: a token and the forced tokens after it.

    Attributes:
        ids: of the prefix that it leads to.
        prior: its share of the probability of its siblings.
        node: the node it leads to; None before the first visit.
    """

    ids: Ids
    prior: float
    node: Node | None = None


@dataclass(eq=False, slots=True)
class Node:
    """A prefix in the tree.

    Attributes:
        ids: its tokens.
        parent: None for the root.
        prior: of the edge that leads here.
        visits: sequences with this prefix and a known reward.
        total: sum of their rewards.
        pending: visits without a reward yet.
        edges: choices after it; empty for a complete sequence, None before expansion.
    """

    ids: Ids
    parent: Node | None = None
    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    pending: int = 0
    edges: list[Edge] | None = None

    @property
    def n(self) -> int:
        """Visits, including pending ones."""
        return self.visits + self.pending

    @property
    def mean(self) -> float:
        """Mean reward, a visit under way counted as the lowest."""
        return (self.total + MIN_REWARD * self.pending) / self.n


def score(node: Node, rule: Rule, c: float) -> float:
    """Return the score of a visited node; for `greedy` its mean reward."""
    n, above = node.n, 1 if node.parent is None else node.parent.n
    if rule == "puct":
        return node.mean + c * node.prior * math.sqrt(above) / (1 + n)
    if rule == "uct":
        return node.mean + c * math.sqrt(math.log(above) / n)
    return node.mean


def select(root: Node, rule: Rule, c: float, random: np.random.Generator) -> Node:
    """Return the node to sample from next, and count a pending visit of it and of all nodes before it.

    Args:
        random: draws among children without visits.
    """
    node = root
    node.pending += 1
    while edges := node.edges:
        new = [edge for edge in edges if edge.node is None]
        if new:
            edge = new[int(random.integers(len(new)))]
            node = edge.node = Node(edge.ids, node, edge.prior)
            node.pending += 1
            return node
        children = [edge.node for edge in edges if edge.node is not None]
        if rule == "greedy" and random.random() < c:
            node = children[int(random.integers(len(children)))]
        else:
            node = max(children, key=lambda child: score(child, rule, c))  # the first of equals
        node.pending += 1
    return node


def learn(node: Node, reward: float) -> None:
    """Add the reward of a visit to a node and all nodes before it."""
    above: Node | None = node
    while above is not None:
        above.pending -= 1
        above.visits += 1
        above.total += reward
        above = above.parent


def most_likely(
    log_probs: Floats, allowed: Sequence[int] | None, *, width: int, cutoff: float
) -> tuple[list[int], list[float]]:
    """Return the most likely tokens and their priors.

    Args:
        log_probs: of all tokens, (V,).
        allowed: tokens to choose from, None for all.
        width: number of tokens, at most.
        cutoff: if the first token has more than this share of their probability, it is the only one.

    Returns:
        The tokens, most likely first, and their priors, which add up to 1.
    """
    tokens = np.arange(len(log_probs)) if allowed is None else np.sort(np.asarray(allowed, dtype=np.int64))
    log_p = log_probs[tokens]
    order = np.argsort(-log_p, kind="stable")[:width]
    shares = np.exp(log_p[order] - log_p[order[0]])
    shares /= shares.sum()
    if shares[0] > cutoff:
        return [int(tokens[order[0]])], [1.0]
    return tokens[order].tolist(), shares.tolist()


@dataclass
class Rewards:
    """Rewards of energies, relative to all energies so far.

    Attributes:
        k: slope of the reward in standard deviations of the energy.
        energies: all so far, eV per atom.
    """

    k: float = 2.0
    energies: list[float] = field(default_factory=list)

    def of(self, energy: float) -> float:
        """Add an energy, and return its reward."""
        self.energies.append(energy)
        seen = np.array(self.energies)
        if (seen == seen[0]).all():
            return 0.5
        z = (energy - seen.mean()) / seen.std()
        return float(1 / (1 + math.exp(min(self.k * z, MAX_EXPONENT))))
