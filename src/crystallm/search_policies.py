"""Where a search writes next: plain sampling, a tree, or what the best crystals so far begin with.

A policy proposes beginnings, a round of several at a time, and learns what came of each before the next
round. What it proposes depends on its options, the seed and what it has learned, on nothing else, so that a
search that was cut off is built again from its log.

    sampling   from the prompt alone, each on its own
    tree       from a leaf of the tree (see `tree`): the search of the paper
    elites     a share from the prompt; the others from a good crystal, drawn in two steps: its family
               (the crystals that differ in nothing but numbers), whose best has the energy E, with weight
               exp(-(E - lowest E) / warmth), in it the k-th best crystal with weight exp(-k / spread). Then

        redraw     its beginning up to some choice, written anew from there on
        change     one of its numbers changed by some steps, all else kept
        fit        of many crystals near the good ones of the family that whose energy is guessed lowest (see
                   `surrogate`), uncertainty counted for it or not

Refuses to know how texts are written, judged and weighed.
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from crystallm import tree
from crystallm.errors import InputError
from crystallm.orbits import parameters
from crystallm.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.beginnings import Beginnings, Ids
    from crystallm.crystallography.space_groups import Floats
    from crystallm.sampling.sample import Writer
    from crystallm.search_options import Options

TRIES = 8
"""Changes that are tried for one that gives a new text."""
SPREAD = 0.7
"""Of the logarithm of a change: most are about as long as asked for, some a quarter, some four times."""
FEW = 4
"""Crystals of a family from which on energies are guessed."""
KNOWN = 60
"""The best crystals of a family, from which they are."""
CANDIDATES = 96
"""Crystals whose energies are guessed, for one that is proposed."""
UNIT = 8.0
"""Steps of a cell parameter that are one unit of length of a guess: 4 %."""


@dataclass(frozen=True)
class Root:
    """A prompt, where a search may begin.

    Attributes:
        prompt: tokens.
        weight: its share among those of a search.
    """

    prompt: Ids
    weight: float


@dataclass(frozen=True)
class Proposal:
    """Where to write.

    Attributes:
        ids: the beginning, or a whole text.
        root: number of the prompt that it begins with.
        move: how it was found, one word: `sample`, `tree`, `redraw`, `change` or `fit`.
        node: its place in the tree, where there is one.
    """

    ids: Ids
    root: int
    move: str = "sample"
    node: tree.Node | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Outcome:
    """What came of a text that was written behind a proposal.

    Attributes:
        ids: of the text.
        energy: eV per atom; None where it is not valid, or has none.
        penalty: the reward where there is no energy, from -1 to 0.
        known: whether an equal crystal was written before.
    """

    ids: Ids
    energy: float | None
    penalty: float
    known: bool = False


class Policy(Protocol):
    """Where to write next."""

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Beginnings of a round.

        Args:
            first: number of its first simulation.
            n: how many.
        """

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Take note of what came of a round: for each proposal the texts written behind it."""


def policy(
    options: Options, seed: int, roots: Sequence[Root], beginnings: Beginnings, writer: Writer
) -> Policy:
    """The policy that the options name."""
    if options.method == "tree":
        return TreePolicy(options, seed, roots, beginnings, writer)
    if options.method == "elites":
        return Elites(options, seed, roots, beginnings)
    return Sampling(seed, roots)


def _random(seed: int, simulation: int) -> np.random.Generator:
    """The random stream of a policy for one simulation, apart from those of the texts."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, 2**63 + simulation], dtype=np.uint64)))


class Sampling:
    """Plain sampling, prompts by their weights.

    Args:
        seed: of the search.
        roots: prompts.
    """

    def __init__(self, seed: int, roots: Sequence[Root]) -> None:
        self._seed = seed
        self._roots = roots
        self._weights = [root.weight for root in roots]

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Beginnings of a round; see `Policy`."""
        return [self.one(_random(self._seed, number)) for number in range(first, first + n)]

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Nothing is learned."""

    def one(self, random: np.random.Generator) -> Proposal:
        """A prompt."""
        place = _drawn(self._weights, random)
        return Proposal(self._roots[place].prompt, place)


class TreePolicy:
    """The tree search of the paper; see `tree`.

    Args:
        options: rule, c, width, cutoff, n_space_groups, prior_temperature, k.
        seed: of the search.
        roots: prompts; of several, each is a child of the root, its weight the prior.
        beginnings: where choices are.
        writer: tells the network's probabilities.
    """

    def __init__(
        self,
        options: Options,
        seed: int,
        roots: Sequence[Root],
        beginnings: Beginnings,
        writer: Writer,
    ) -> None:
        self._options = options
        self._seed = seed
        self._prompts = [len(root.prompt) for root in roots]
        self._beginnings = beginnings
        self._writer = writer
        self._rewards = tree.Rewards(options.k)
        self._root_of: dict[int, int] = {}
        self.root = tree.Node(())
        starts = [beginnings.settled(root.prompt, len(root.prompt)) for root in roots]
        if len(roots) == 1:
            self.root.ids = starts[0]
            self._open([(self.root, 0)])
            return
        self.root.edges = [
            tree.Edge(ids, root.weight / sum(r.weight for r in roots))
            for ids, root in zip(starts, roots, strict=True)
        ]

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Leaves of the tree; see `Policy`."""
        found = []
        for number in range(first, first + n):
            node = tree.select(self.root, self._options.rule, self._options.c, _random(self._seed, number))
            found.append(Proposal(node.ids, self._place(node), "tree", node))
        return found

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Add rewards to the tree, and look what may come behind its new leaves."""
        fresh: dict[int, tuple[tree.Node, int]] = {}
        for proposal, texts in zip(proposals, outcomes, strict=True):
            if proposal.node is None:
                raise AssertionError("a proposal of another policy")
            rewards = [
                self._rewards.of(text.energy) if text.energy is not None else text.penalty for text in texts
            ]
            tree.learn(proposal.node, sum(rewards) / len(rewards))
            if proposal.node.edges is None:
                fresh[id(proposal.node)] = proposal.node, proposal.root
        self._open(list(fresh.values()))

    def _place(self, node: tree.Node) -> int:
        """Number of the prompt that a node begins with."""
        if len(self._prompts) == 1:
            return 0
        below = node
        while below.parent is not None and below.parent is not self.root:
            below = below.parent
        edges = self.root.edges or []
        return next(i for i, edge in enumerate(edges) if edge.node is below)

    def _open(self, nodes: list[tuple[tree.Node, int]]) -> None:
        """Find the choices behind nodes; runs of tokens that are as good as certain come before them."""
        trunks = [node.ids for node, _ in nodes]
        todo = list(range(len(nodes)))
        while todo:
            for i in tuple(todo):
                if self._beginnings.complete(trunks[i], self._prompts[nodes[i][1]]):
                    nodes[i][0].edges = []
                    todo.remove(i)
            offered = [self._beginnings.options(trunks[i]) for i in todo]
            dead = [
                i for i, options in zip(todo, offered, strict=True) if options is not None and not options
            ]
            for i in dead:
                nodes[i][0].edges = []
            kept = [(i, options) for i, options in zip(todo, offered, strict=True) if i not in dead]
            peeked = self._writer.peek([(trunks[i], self._prompts[nodes[i][1]]) for i, _ in kept])
            todo = []
            for (i, options), log_probs in zip(kept, peeked.double().cpu().numpy(), strict=True):
                n_prompt = self._prompts[nodes[i][1]]
                tokens, priors = self._wide(log_probs, options, trunks[i])
                children = [self._beginnings.followed(trunks[i], (token,), n_prompt) for token in tokens]
                if len(children) == 1 and not self._beginnings.complete(children[0], n_prompt):
                    trunks[i] = children[0]
                    todo.append(i)
                    continue
                nodes[i][0].edges = [
                    tree.Edge(ids, prior) for ids, prior in zip(children, priors, strict=True)
                ]

    def _wide(
        self, log_probs: Floats, options: Sequence[int] | None, ids: Ids
    ) -> tuple[list[int], list[float]]:
        asked = self._options
        if asked.n_space_groups and self._beginnings.names_group(ids):
            return tree.widest(
                log_probs,
                options,
                width=asked.n_space_groups,
                cutoff=1.0,
                temperature=asked.prior_temperature,
            )
        return tree.widest(
            log_probs,
            options,
            width=asked.width,
            cutoff=asked.cutoff,
            temperature=asked.prior_temperature,
        )


class Elites:
    """What the best crystals so far begin with.

    Crystals that differ in nothing but numbers are a family; of the published language all are one.

    Args:
        options: warm_up, explore, redraw, change, warmth, spread, step.
        seed: of the search.
        roots: prompts.
        beginnings: where choices are.
    """

    def __init__(self, options: Options, seed: int, roots: Sequence[Root], beginnings: Beginnings) -> None:
        self._options = options
        self._seed = seed
        self._roots = roots
        self._beginnings = beginnings
        self._numbered = beginnings.language.name == "orbits"
        self._sampling = Sampling(seed, roots)
        self._families: dict[Ids, list[tuple[float, Ids, int]]] = {}  # (energy, text, root), the lowest first
        self._proposed: set[Ids] = set()  # whole texts

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Prompts, and beginnings of good crystals; see `Policy`."""
        return [self._one(number) for number in range(first, first + n)]

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Remember the good crystals."""
        for proposal, texts in zip(proposals, outcomes, strict=True):
            for text in texts:
                self._proposed.add(text.ids)
                if text.energy is not None and not text.known:
                    family = self._families.setdefault(self._family(text.ids), [])
                    bisect.insort(family, (text.energy, text.ids, proposal.root))

    def _family(self, ids: Ids) -> Ids:
        """What crystals of a family have in common: all before the first number, and how many follow."""
        if not self._numbered:
            return ()
        places = parameters.places(ids)
        return (*(ids[: places[0]] if places else ids), -len(ids))

    def _one(self, number: int) -> Proposal:
        random, options = _random(self._seed, number), self._options
        if number < options.warm_up or not self._families or random.random() < options.explore:
            return self._sampling.one(random)
        family = self._drawn_family(random)
        _, ids, root = family[_drawn(np.exp(-np.arange(len(family)) / options.spread), random)]
        n_prompt = len(self._roots[root].prompt)
        move = random.random()
        if self._numbered and move >= options.redraw:
            fits = move >= options.redraw + options.change and len(family) >= FEW
            wishes = self._fitting(family, random) if fits else self._changes(ids, n_prompt, random)
            for wish in itertools.islice(wishes, TRIES):
                if (found := self._new(wish, n_prompt)) is not None:
                    return Proposal(found, root, "fit" if fits else "change")
        places = self._beginnings.choices(ids, n_prompt)
        if not places:
            return self._sampling.one(random)
        return Proposal(ids[: places[int(random.integers(len(places)))]], root, "redraw")

    def _drawn_family(self, random: np.random.Generator) -> list[tuple[float, Ids, int]]:
        families = list(self._families.values())
        lowest = np.array([family[0][0] for family in families])
        return families[_drawn(np.exp((lowest.min() - lowest) / self._options.warmth), random)]

    def _changes(self, ids: Ids, n_prompt: int, random: np.random.Generator) -> Iterator[Ids]:
        """A crystal with one of its numbers changed, in ever other ways."""
        places = [place for place in parameters.places(ids) if place >= n_prompt]
        while places:
            length = self._options.step * math.exp(SPREAD * random.normal()) * random.normal()
            changed = parameters.changed(ids, places[int(random.integers(len(places)))], length)
            if changed is not None:
                yield changed

    def _fitting(
        self, family: Sequence[tuple[float, Ids, int]], random: np.random.Generator
    ) -> Iterator[Ids]:
        """Crystals near the good ones of a family, those first whose energies are guessed lowest."""
        known = family[:KNOWN]
        head = known[0][1]
        units = np.array(parameters.units(head))
        if not len(units):
            return
        steps = np.array([parameters.apart(head, ids) for _, ids, _ in known], dtype=float)  # (n, d)
        guess = Surrogate(steps / (UNIT * units), np.array([energy for energy, _, _ in known]))
        near = _near(steps, self._options.step * units, self._options.spread, random)
        mean, deviation = guess.guess(near / (UNIT * units))
        for place in np.argsort(mean - float(random.integers(2)) * deviation, kind="stable").tolist():
            if (found := parameters.moved(head, near[place].astype(int).tolist())) is not None:
                yield found

    def _new(self, wish: Ids, n_prompt: int) -> Ids | None:
        """As much of a text as the rules let through; None if that is none of its numbers, or not new."""
        try:
            found = self._beginnings.followed(wish[:n_prompt], wish[n_prompt:], n_prompt)
        except InputError:
            return None
        if found in self._proposed or not parameters.places(found):
            return None
        self._proposed.add(found)
        return found


def _near(steps: Floats, length: Floats, spread: float, random: np.random.Generator) -> Floats:
    """Points (m, d) near the first of some (n, d), in whole steps: about one, or along the way between two.

    Args:
        steps: the best first.
        length: by which points are moved, for each number.
        spread: as of the options.
        random: draws.
    """
    n = len(steps)
    weights = np.exp(-np.arange(n) / spread)
    found = []
    for k in range(CANDIDATES):
        start = steps[_drawn(weights, random)]
        if k % 3 == 0:
            better, worse = sorted(random.choice(n, 2, replace=False).tolist())
            found.append(start + random.uniform(0.1, 1.0) * (steps[better] - steps[worse]))
        else:
            some = random.random(len(length)) < (1.0 if k % 3 == 1 else 0.3)
            found.append(start + some * random.normal(size=len(length)) * length * random.uniform(0.2, 2.0))
    return np.asarray(np.rint(np.array(found)), dtype=np.float64)


def _drawn(weights: Sequence[float] | Floats, random: np.random.Generator) -> int:
    """A place, with these weights."""
    bounds = np.cumsum(weights)
    place = int(np.searchsorted(bounds, random.random() * bounds[-1], side="right"))
    return min(place, len(bounds) - 1)
