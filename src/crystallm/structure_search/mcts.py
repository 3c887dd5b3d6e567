"""The tree of a search: which choice to follow, and what came of it.

With n visits of a child, w the sum of their rewards, p its prior and N the visits of its parent, the child
that is followed has the largest

    puct      w/n + c p sqrt(N) / (1 + n)
    uct       w/n + c sqrt(ln N / n)
    greedy    w/n, but any of them, drawn at random, at the rate c

and a child that has not been visited comes before all others, drawn at random (CrystaLLM, Nature
Communications 15, 10570). A visit whose reward is not yet known counts as one with the lowest reward, so that
several that are under way at a time part.

Rewards of crystals with energies E: 1 / (1 + exp(k z)), z = (E - mean) / deviation over all energies so far,
this one among them; 1/2 where they are all equal. Knows numbers and tokens; refuses to know networks and
crystals.
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
LOSS = -1.0
"""The lowest reward: of what is no valid crystal, has no energy, or is not known yet."""
LARGEST = 700.0
"""Beyond it the exponential of a float overflows."""


@dataclass(slots=True)
class Edge:
    """A choice: the token and what must follow it.

    Attributes:
        ids: of the beginning that it leads to.
        prior: its share of probability among its siblings.
        node: where it leads, None until it is taken.
    """

    ids: Ids
    prior: float
    node: Node | None = None


@dataclass(eq=False, slots=True)
class Node:
    """A beginning in the tree.

    Attributes:
        parent: None of the root.
        prior: of the edge that leads here.
        total: sum of their rewards.
        pending: of its visits that are under way.
        edges: choices behind it; none at the end of a text, None as long as nobody has looked.
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
        """Visits, those under way too."""
        return self.visits + self.pending

    @property
    def mean(self) -> float:
        """Mean reward, a visit under way counted as the lowest."""
        return (self.total + LOSS * self.pending) / self.n


def score(node: Node, rule: Rule, c: float) -> float:
    """How much speaks for a node that has been visited; of `greedy`, its mean."""
    n, above = node.n, 1 if node.parent is None else node.parent.n
    if rule == "puct":
        return node.mean + c * node.prior * math.sqrt(above) / (1 + n)
    if rule == "uct":
        return node.mean + c * math.sqrt(math.log(above) / n)
    return node.mean


def select(root: Node, rule: Rule, c: float, random: np.random.Generator) -> Node:
    """The node behind which to write next; it counts as visited from now on, as do those before it.

    Args:
        random: draws among children that have not been visited.
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
    """Add what came of a visit to a node and all before it."""
    above: Node | None = node
    while above is not None:
        above.pending -= 1
        above.visits += 1
        above.total += reward
        above = above.parent


def widest(
    log_probs: Floats,
    options: Sequence[int] | None,
    *,
    width: int,
    cutoff: float,
    temperature: float = 1.0,
) -> tuple[list[int], list[float]]:
    """The likeliest tokens and their priors.

    Args:
        log_probs: of all tokens, (V,).
        width: how many are taken, at most.
        cutoff: where the first of these holds more than this share of their probability, it comes alone.
        temperature: log-probabilities are divided by it.

    Returns:
        The tokens, likeliest first, and their priors, which add up to 1.
    """
    tokens = np.arange(len(log_probs)) if options is None else np.sort(np.asarray(options, dtype=np.int64))
    heights = log_probs[tokens] / temperature
    order = np.argsort(-heights, kind="stable")[:width]
    shares = np.exp(heights[order] - heights[order[0]])
    shares /= shares.sum()
    if shares[0] > cutoff:
        return [int(tokens[order[0]])], [1.0]
    return tokens[order].tolist(), shares.tolist()


@dataclass
class Rewards:
    """Rewards of energies by what was seen before.

    Attributes:
        k: how much a deviation counts.
        energies: all so far, eV per atom.
    """

    k: float = 2.0
    energies: list[float] = field(default_factory=list)

    def of(self, energy: float) -> float:
        """The reward of an energy, which is then one of those seen."""
        self.energies.append(energy)
        seen = np.array(self.energies)
        if (seen == seen[0]).all():
            return 0.5
        z = (energy - seen.mean()) / seen.std()
        return float(1 / (1 + math.exp(min(self.k * z, LARGEST))))
