"""Samples of a search, and which of them are equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from crystallm.crystals.crystal import Crystal
from crystallm.errors import CrystallmError
from crystallm.sampling.sequence import Sample
from crystallm.structure_search.policy import Outcome


@dataclass
class SearchSample:
    """One crystal that a search has sampled.

    Attributes:
        crystal: with validity and energy.
        simulation: in which it was sampled, from 0.
        seconds: since the search began, at the end of its round.
        move: how its prefix was chosen, see `Proposal`.
        call: number of its energy call, from 1; None for none.
        equals: index of the first equal sample; None for none.
        sample: its token sequence as sampled; None if a log without tokens gave it back.
    """

    crystal: Crystal
    simulation: int
    seconds: float
    move: str
    call: int | None = None
    equals: int | None = None
    sample: Sample | None = None

    @cached_property
    def form(self) -> str:
        """The same for equal crystals: the canonical description in the orbits language."""
        from crystallm.language import get_language

        language = get_language("orbits")
        try:
            return language.text(language.encode(self.crystal.structure))
        except CrystallmError:
            return self.crystal.text  # near a higher symmetry, or beyond what that language can express

    @property
    def outcome(self) -> Outcome:
        """What a policy learns of it."""
        crystal = self.crystal
        return Outcome(crystal.ids, crystal.objective, invalid_reward(crystal), self.equals is not None)

    @property
    def lacks_objective(self) -> bool:
        """Whether it should have a value of the objective and has none."""
        return self.crystal.validity.plausible and self.crystal.objective is None


def invalid_reward(crystal: Crystal) -> float:
    """Return the reward of a crystal without an energy, in [-1, 0].

    Minus the share of unreasonable bonds where nothing else is wrong, else -1.
    """
    validity = crystal.validity
    only_bonds = validity.sensible and validity.formula and validity.multiplicity and validity.space_group
    if validity.valid or not only_bonds or validity.bond_score is None or math.isnan(validity.bond_score):
        return -1.0
    return -(1.0 - validity.bond_score)


@dataclass(frozen=True)
class State:
    """Progress of a search.

    Attributes:
        calls: crystals whose energy was computed, or tried.
        texts: crystals sampled.
        plausible: number of these that are plausible.
        best: lowest value of the objective, by default of the energy, eV/atom; None so far.
        seconds: since the search began, earlier runs included.
    """

    simulations: int
    calls: int
    texts: int
    plausible: int
    best: float | None
    seconds: float


class SearchResults:
    """All samples of a search, counted, with their equals.

    Attributes:
        n_failed: energy calls in a row that gave no energy.
        n_idle: simulations in a row without a new plausible crystal.
    """

    def __init__(self) -> None:
        self.samples: list[SearchSample] = []
        self.n_simulations = self.n_calls = self.n_failed = self.n_idle = 0
        self._n_plausible = 0
        self._best: float | None = None
        self._by_ids: dict[tuple[int, ...], int] = {}  # indices in `samples`
        self._by_form: dict[str, int] = {}

    @property
    def state(self) -> State:
        """Progress so far."""
        seconds = self.samples[-1].seconds if self.samples else 0.0
        return State(
            self.n_simulations, self.n_calls, len(self.samples), self._n_plausible, self._best, seconds
        )

    def same_ids(self, ids: tuple[int, ...]) -> SearchSample | None:
        """Return an earlier sample with the same token sequence."""
        index = self._by_ids.get(ids)
        return None if index is None else self.samples[index]

    def set_equals(self, samples: Sequence[SearchSample]) -> list[SearchSample]:
        """Set `equals` of new samples, and `call` of those that need an energy, which are returned."""
        new: dict[str, int] = {}  # indices as they will be in `samples`
        to_compute: list[SearchSample] = []
        for index, sample in enumerate(samples, start=len(self.samples)):
            if not sample.crystal.validity.plausible:
                continue
            # Most equal crystals have the same token sequence.
            if (known := self._by_ids.get(sample.crystal.ids)) is not None:
                first = self.samples[known].equals
                sample.equals = known if first is None else first
                continue
            sample.equals = self._by_form.get(sample.form, new.get(sample.form))
            if sample.equals is None:
                new[sample.form] = index
                to_compute.append(sample)
                sample.call = self.n_calls + len(to_compute)
        return to_compute

    def copy_energies(self, samples: Sequence[SearchSample]) -> None:
        """Give new samples the energies of their equals."""
        n = len(self.samples)
        for sample in samples:
            if sample.equals is not None:
                equal = self.samples[sample.equals] if sample.equals < n else samples[sample.equals - n]
                sample.crystal.energy = equal.crystal.energy
                sample.crystal.energy_reason = equal.crystal.energy_reason
                sample.crystal.objective = equal.crystal.objective

    def add_round(self, simulations: Sequence[Sequence[SearchSample]]) -> None:
        """Add the samples of each simulation of a round."""
        for samples in simulations:
            self.n_idle = 0 if any(sample.call is not None for sample in samples) else self.n_idle + 1
            for sample in samples:
                self._add(sample)
        self.n_simulations += len(simulations)

    def _add(self, sample: SearchSample) -> None:
        crystal, index = sample.crystal, len(self.samples)
        self.samples.append(sample)
        self._by_ids.setdefault(crystal.ids, index)
        self._n_plausible += crystal.validity.plausible
        if sample.call is not None:
            self._by_ids[crystal.ids] = self._by_form[sample.form] = index
            self.n_calls += 1
            self.n_failed = 0 if crystal.objective is not None else self.n_failed + 1
        if crystal.objective is not None and (self._best is None or crystal.objective < self._best):
            self._best = crystal.objective

    def retry_failed(self) -> None:
        """Forget that crystals lack an energy, so that it is computed where they are sampled again."""
        self.n_failed = 0
        kept = {index for index, sample in enumerate(self.samples) if not sample.lacks_objective}
        self._by_ids = {ids: index for ids, index in self._by_ids.items() if index in kept}
        self._by_form = {form: index for form, index in self._by_form.items() if index in kept}
