"""Search near the best crystals so far.

The first simulations are crystals made of known ones, if there are some. Of the others a share samples from
the prompt. The rest start from a good crystal, drawn in two steps: first its family (crystals that differ
only in numbers), whose best has the energy E, with weight exp(-(E - lowest E) / energy_scale); in it the k-th
best crystal with weight exp(-k / rank_scale). Then

    resample   its prefix up to a random choice is kept, the rest is sampled again
    mutate     one of its numbers is changed by some steps
    fit        of many crystals near the good ones of the family, the one with the lowest energy that a
               Gaussian process predicts (see `gaussian_process`), less its uncertainty in half of the cases

Proposals depend on the options, the seed and the learned outcomes only, so that a search resumes from its
log. Does not depend on sampling, checks or energy models.
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
from crystallm.structure_search.policy import Proposal, Sampling, draw_index, random_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.crystallography.space_groups import Floats
    from crystallm.structure_search.known_starts import KnownStart
    from crystallm.structure_search.options import EliteOptions
    from crystallm.structure_search.policy import Outcome, SearchPrompt
    from crystallm.structure_search.prefixes import Ids, PrefixExplorer

MAX_TRIES = 8
"""Candidates that are tried for one that gives a new sequence."""
STEP_SPREAD = 0.7
"""Standard deviation of the logarithm of a mutation: most are about `mutation_step`, some a quarter of it,
some four times as large."""
MIN_FAMILY = 4
"""Crystals that a family needs for predicted energies."""
MAX_TRAINING = 60
"""The best crystals of a family, from which energies are predicted."""
N_CANDIDATES = 96
"""Crystals whose energies are predicted for one proposal."""
LENGTH_UNIT = 8.0
"""Steps of a cell parameter that are one unit of length of the Gaussian process: 4 %."""


class ElitePolicy:
    """Proposes prefixes of the best crystals so far.

    Crystals that differ only in numbers are a family; in the published language all are one family.
        prefixes: finds the choices of a sequence.
        known: crystals to begin with.
    """

    def __init__(
        self,
        options: EliteOptions,
        seed: int,
        roots: Sequence[SearchPrompt],
        prefixes: PrefixExplorer,
        known: Sequence[KnownStart] = (),
    ) -> None:
        self._options = options
        self._seed = seed
        self._roots = roots
        self._known = known
        self._prefixes = prefixes
        self._has_parameters = prefixes.language.has_parameters
        self._sampling = Sampling(seed, roots)
        self._families: dict[Ids, list[tuple[float, Ids, int]]] = {}  # (energy, ids, root), lowest first
        self._proposed: set[Ids] = set()  # whole sequences

    def propose(self, first: int, n: int) -> list[Proposal]:
        """Return prompts, and prefixes of good crystals; see `Policy`."""
        return [self._propose(number) for number in range(first, first + n)]

    def learn(self, proposals: Sequence[Proposal], outcomes: Sequence[Sequence[Outcome]]) -> None:
        """Add new crystals with energies to their families."""
        for proposal, samples in zip(proposals, outcomes, strict=True):
            for sample in samples:
                self._proposed.add(sample.ids)
                if sample.energy is not None and not sample.is_duplicate:
                    family = self._families.setdefault(self._family_of(sample.ids), [])
                    bisect.insort(family, (sample.energy, sample.ids, proposal.root))

    def _family_of(self, ids: Ids) -> Ids:
        """Return what the crystals of a family share: the tokens before the first number, and the length."""
        if not self._has_parameters:
            return ()
        positions = parameters.positions(ids)
        return (*(ids[: positions[0]] if positions else ids), -len(ids))

    def _propose(self, number: int) -> Proposal:
        random, options = random_stream(self._seed, number), self._options
        if number < len(self._known):
            known = self._known[number]
            n_prompt = len(self._roots[known.root].prompt)
            ids = self._prefixes.extend(known.ids[:n_prompt], known.ids[n_prompt:], n_prompt)
            return Proposal(ids, known.root, "relative")
        if number < options.warm_up or not self._families or random.random() < options.explore_share:
            return self._sampling.propose_one(random)
        family = self._draw_family(random)
        _, ids, root = family[draw_index(np.exp(-np.arange(len(family)) / options.rank_scale), random)]
        n_prompt = len(self._roots[root].prompt)
        move = random.random()
        if self._has_parameters and move >= options.resample_share:
            fits = move >= options.resample_share + options.mutation_share and len(family) >= MIN_FAMILY
            candidates = self._predicted(family, random) if fits else self._mutations(ids, n_prompt, random)
            for candidate in itertools.islice(candidates, MAX_TRIES):
                if (new := self._new_sequence(candidate, n_prompt)) is not None:
                    return Proposal(new, root, "fit" if fits else "mutate")
        positions = self._prefixes.choice_positions(ids, n_prompt)
        if not positions:
            return self._sampling.propose_one(random)
        return Proposal(ids[: positions[int(random.integers(len(positions)))]], root, "resample")

    def _draw_family(self, random: np.random.Generator) -> list[tuple[float, Ids, int]]:
        families = list(self._families.values())
        lowest = np.array([family[0][0] for family in families])
        return families[draw_index(np.exp((lowest.min() - lowest) / self._options.energy_scale), random)]

    def _mutations(self, ids: Ids, n_prompt: int, random: np.random.Generator) -> Iterator[Ids]:
        """Yield a crystal with one of its numbers changed, each time another way."""
        positions = [position for position in parameters.positions(ids) if position >= n_prompt]
        while positions:
            length = self._options.mutation_step * math.exp(STEP_SPREAD * random.normal()) * random.normal()
            changed = parameters.changed(ids, positions[int(random.integers(len(positions)))], length)
            if changed is not None:
                yield changed

    def _predicted(
        self, family: Sequence[tuple[float, Ids, int]], random: np.random.Generator
    ) -> Iterator[Ids]:
        """Yield crystals near the good ones of a family, by rising predicted energy."""
        training = family[:MAX_TRAINING]
        reference = training[0][1]
        sizes = np.array(parameters.step_sizes(reference))
        if not len(sizes):
            return
        steps = np.array(
            [parameters.differences(reference, ids) for _, ids, _ in training], dtype=float
        )  # (n, d)
        surrogate = Surrogate(steps / (LENGTH_UNIT * sizes), np.array([energy for energy, _, _ in training]))
        near = _near(steps, self._options.mutation_step * sizes, self._options.rank_scale, random)
        mean, deviation = surrogate.predict(near / (LENGTH_UNIT * sizes))
        for i in np.argsort(mean - float(random.integers(2)) * deviation, kind="stable").tolist():
            if (shifted := parameters.shifted(reference, near[i].astype(int).tolist())) is not None:
                yield shifted

    def _new_sequence(self, candidate: Ids, n_prompt: int) -> Ids | None:
        """Return as much of a sequence as the grammar allows; None if it has no number or is not new."""
        try:
            ids = self._prefixes.extend(candidate[:n_prompt], candidate[n_prompt:], n_prompt)
        except InputError:
            return None
        if ids in self._proposed or not parameters.positions(ids):
            return None
        self._proposed.add(ids)
        return ids


def _near(steps: Floats, length: Floats, rank_scale: float, random: np.random.Generator) -> Floats:
    """Return points (m, d) in whole steps, near one of the given ones or between two of them.

    Args:
        steps: points (n, d), the best first.
        length: size of the change of each number, (d,).
        rank_scale: ranks over which the weight of a point falls to 1/e.
    """
    n = len(steps)
    weights = np.exp(-np.arange(n) / rank_scale)
    points = []
    for k in range(N_CANDIDATES):
        start = steps[draw_index(weights, random)]
        if k % 3 == 0:
            better, worse = sorted(random.choice(n, 2, replace=False).tolist())
            points.append(start + random.uniform(0.1, 1.0) * (steps[better] - steps[worse]))
        else:
            some = random.random(len(length)) < (1.0 if k % 3 == 1 else 0.3)
            points.append(start + some * random.normal(size=len(length)) * length * random.uniform(0.2, 2.0))
    return np.asarray(np.rint(np.array(points)), dtype=np.float64)
