"""Where a search writes next: plain sampling, a tree, or what the best crystals so far begin with.

A policy proposes prefixes, a round of several at a time, and learns what came of each before the next
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
from typing import TYPE_CHECKING

import numpy as np

from crystallm.errors import InputError
from crystallm.orbits import parameters
from crystallm.structure_search.gaussian_process import Surrogate
from crystallm.structure_search.policy import Proposal, Sampling, drawn, random_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.crystallography.space_groups import Floats
    from crystallm.structure_search.options import EliteOptions
    from crystallm.structure_search.policy import Outcome, SearchPrompt
    from crystallm.structure_search.prefixes import Ids, PrefixExplorer

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


class ElitePolicy:
    """What the best crystals so far begin with.

    Crystals that differ in nothing but numbers are a family; of the published language all are one.
    """

    def __init__(
        self, options: EliteOptions, seed: int, roots: Sequence[SearchPrompt], prefixes: PrefixExplorer
    ) -> None:
        self._options = options
        self._seed = seed
        self._roots = roots
        self._prefixes = prefixes
        self._numbered = prefixes.language.has_parameters
        self._sampling = Sampling(seed, roots)
        self._families: dict[Ids, list[tuple[float, Ids, int]]] = {}  # (energy, text, root), the lowest first
        self._proposed: set[Ids] = set()  # whole texts

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Prompts, and prefixes of good crystals; see `Policy`."""
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
        places = parameters.positions(ids)
        return (*(ids[: places[0]] if places else ids), -len(ids))

    def _one(self, number: int) -> Proposal:
        random, options = random_stream(self._seed, number), self._options
        if number < options.warm_up or not self._families or random.random() < options.explore_share:
            return self._sampling.one(random)
        family = self._drawn_family(random)
        _, ids, root = family[drawn(np.exp(-np.arange(len(family)) / options.rank_scale), random)]
        n_prompt = len(self._roots[root].prompt)
        move = random.random()
        if self._numbered and move >= options.resample_share:
            fits = move >= options.resample_share + options.mutation_share and len(family) >= FEW
            wishes = self._fitting(family, random) if fits else self._changes(ids, n_prompt, random)
            for wish in itertools.islice(wishes, TRIES):
                if (found := self._new(wish, n_prompt)) is not None:
                    return Proposal(found, root, "fit" if fits else "change")
        places = self._prefixes.choices(ids, n_prompt)
        if not places:
            return self._sampling.one(random)
        return Proposal(ids[: places[int(random.integers(len(places)))]], root, "redraw")

    def _drawn_family(self, random: np.random.Generator) -> list[tuple[float, Ids, int]]:
        families = list(self._families.values())
        lowest = np.array([family[0][0] for family in families])
        return families[drawn(np.exp((lowest.min() - lowest) / self._options.energy_scale), random)]

    def _changes(self, ids: Ids, n_prompt: int, random: np.random.Generator) -> Iterator[Ids]:
        """A crystal with one of its numbers changed, in ever other ways."""
        places = [place for place in parameters.positions(ids) if place >= n_prompt]
        while places:
            length = self._options.mutation_step * math.exp(SPREAD * random.normal()) * random.normal()
            changed = parameters.changed(ids, places[int(random.integers(len(places)))], length)
            if changed is not None:
                yield changed

    def _fitting(
        self, family: Sequence[tuple[float, Ids, int]], random: np.random.Generator
    ) -> Iterator[Ids]:
        """Crystals near the good ones of a family, those first whose energies are guessed lowest."""
        known = family[:KNOWN]
        head = known[0][1]
        units = np.array(parameters.step_sizes(head))
        if not len(units):
            return
        steps = np.array([parameters.differences(head, ids) for _, ids, _ in known], dtype=float)  # (n, d)
        guess = Surrogate(steps / (UNIT * units), np.array([energy for energy, _, _ in known]))
        near = _near(steps, self._options.mutation_step * units, self._options.rank_scale, random)
        mean, deviation = guess.guess(near / (UNIT * units))
        for place in np.argsort(mean - float(random.integers(2)) * deviation, kind="stable").tolist():
            if (found := parameters.shifted(head, near[place].astype(int).tolist())) is not None:
                yield found

    def _new(self, wish: Ids, n_prompt: int) -> Ids | None:
        """As much of a text as the rules let through; None if that is none of its numbers, or not new."""
        try:
            found = self._prefixes.followed(wish[:n_prompt], wish[n_prompt:], n_prompt)
        except InputError:
            return None
        if found in self._proposed or not parameters.positions(found):
            return None
        self._proposed.add(found)
        return found


def _near(steps: Floats, length: Floats, spread: float, random: np.random.Generator) -> Floats:
    """Points (m, d) near the first of some (n, d), in whole steps: about one, or along the way between two.

    Args:
        length: by which points are moved, for each number.
    """
    n = len(steps)
    weights = np.exp(-np.arange(n) / spread)
    found = []
    for k in range(CANDIDATES):
        start = steps[drawn(weights, random)]
        if k % 3 == 0:
            better, worse = sorted(random.choice(n, 2, replace=False).tolist())
            found.append(start + random.uniform(0.1, 1.0) * (steps[better] - steps[worse]))
        else:
            some = random.random(len(length)) < (1.0 if k % 3 == 1 else 0.3)
            found.append(start + some * random.normal(size=len(length)) * length * random.uniform(0.2, 2.0))
    return np.asarray(np.rint(np.array(found)), dtype=np.float64)
