"""Search for crystals of low energy: sample, check, compute energies, learn where to sample next.

    round       a policy (see `policy`) proposes prefixes; they are sampled together and checked, the energies
                of plausible crystals are computed, and the policy learns them
    equal       crystals with one canonical description in the orbits language: one energy for all
    call        a crystal whose energy or other objective was computed, or tried
    log         a round is in the log before the next begins; a search resumes from it

In float32 a search depends only on the request, options, settings and seed, as long as the energy model is
deterministic. The limits count too: the last round is cut short to keep them, and a search that resumes under
higher ones has learned from that. A resumed search computes missing energies again where a crystal is sampled
again.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.execution import interrupt
from crystallm.execution.pool import ProcessPool
from crystallm.generation.generator import Generator
from crystallm.storage.journal import Journal
from crystallm.structure_search.elite_policy import ElitePolicy
from crystallm.structure_search.known_starts import KnownStart, known_starts
from crystallm.structure_search.log_records import from_record, to_record
from crystallm.structure_search.objectives.objective import WeightedSum
from crystallm.structure_search.policy import Sampling, SearchPrompt
from crystallm.structure_search.prefixes import PrefixExplorer
from crystallm.structure_search.results import SearchResults, SearchSample, State
from crystallm.structure_search.tree_policy import TreePolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from crystallm.generation.request import Request, SamplingOptions
    from crystallm.models.model import Model
    from crystallm.references.library import Library
    from crystallm.sampling.sample import PrefixSampler
    from crystallm.structure_search.options import SearchOptions
    from crystallm.structure_search.policy import Policy, Proposal

    OnRound = Callable[[State, Sequence[SearchSample]], object]

LOG = logging.getLogger(__name__)
GIVE_UP = 10
"""Crystals in a row without an energy after which a search ends: at a minute each, ten minutes."""
IDLE = 500
"""Simulations in a row without a new crystal after which a search ends that only energy calls or minutes
limit."""


def make_policy(
    options: SearchOptions,
    seed: int,
    roots: Sequence[SearchPrompt],
    prefixes: PrefixExplorer,
    sampler: PrefixSampler,
    *,
    known: Sequence[KnownStart] = (),
) -> Policy:
    """Return the policy of `options.method`; `known` are the first crystals of `elites`."""
    if options.method == "tree":
        return TreePolicy(options.tree, seed, roots, prefixes, sampler)
    if options.method == "elites":
        return ElitePolicy(options.elites, seed, roots, prefixes, known)
    return Sampling(seed, roots)


@dataclass
class Search:
    """One search.

    Args:
        settings: how to sample; its device runs the energy model too.
        path: of the log; None for no log.
        max_atoms: of cells that are tried where Z is open; None for no limit beyond the usual.
        log_samples: write the log-probability of every token to the log, which makes it several times as
            long, so that `SearchSample.sample` is there after a restart.
        library: known crystals; those made of them come first, at most half of `warm_up`. None: none. Used by
            the method `elites` alone.

    Attributes:
        note: how the request was interpreted.
    """

    model: Model
    request: Request
    options: SearchOptions
    settings: SamplingOptions
    path: Path | None = None
    workers: int = 1
    max_atoms: int | None = None
    log_samples: bool = False
    library: Library | None = None
    executor: Executor | None = None
    stopped: str = ""

    def __post_init__(self) -> None:
        from crystallm.sampling.sample import PrefixSampler

        self.results = SearchResults()
        self._objective = WeightedSum(self.options.objective, self.options.measured)
        request = self.request.model_copy(update={"n": 1})
        self._generator = Generator(self.model, [request], self.settings, max_atoms=self.max_atoms)
        self._choices = self._generator.choices(0)
        self.note = self._generator.note(0)
        grammar = self._generator.grammar(0)
        options = self._generator.sequence_options()
        self._sampler = PrefixSampler(
            self.model.network,
            stop=options.stop,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            batch_size=self.settings.batch_size,
            max_new_tokens=options.max_new_tokens,
            grammar=grammar,
        )
        roots = [SearchPrompt(choice.prompt, choice.weight) for choice in self._choices]
        prefixes = PrefixExplorer(self.model.language, grammar, self.model.config.context)
        self._policy = make_policy(
            self.options, self.settings.seed, roots, prefixes, self._sampler, known=self._known_starts(roots)
        )
        self._log = Journal(self.path)
        self._seconds_before = 0.0

    def _known_starts(self, roots: Sequence[SearchPrompt]) -> list[KnownStart]:
        if self.library is None or self.request.formula is None or self.options.method != "elites":
            return []
        return known_starts(
            self.library,
            self._generator.plans[0],
            roots,
            self.model.language,
            self.options.elites.warm_up // 2,
            max_atoms=self.max_atoms,
        )

    @property
    def samples(self) -> list[SearchSample]:
        """All samples so far."""
        return self.results.samples

    @property
    def state(self) -> State:
        """Progress so far."""
        return self.results.state

    def run(self, *, on_round: OnRound = lambda *_: None) -> list[SearchSample]:
        """Search until a limit is reached.

        Args:
            on_round: called after each round, those of the log too, with the progress and its samples.

        Returns:
            All samples.

        Raises:
            CrystallmError: the energy model cannot be loaded; the log cannot be written, is of another
                search, or is in use by another process.
        """
        with self._log.held(), ExitStack() as stack:
            for records in self._log.rounds:
                first = self.results.n_simulations
                proposals = self._policy.propose(first, records[-1]["simulation"] + 1 - first)
                self._finish_round(proposals, self._restore_round(proposals, records), on_round)
            self._seconds_before = self.state.seconds
            self.results.retry_failed()  # the energy model may have been repaired since
            started = time.monotonic()
            if self.executor is None:
                self.executor = stack.enter_context(ProcessPool(self.workers))
                stack.callback(setattr, self, "executor", None)
            while not self._is_done(time.monotonic() - started):
                proposals = self._policy.propose(self.results.n_simulations, self._round_size())
                simulations = self._sample_round(proposals)
                self._score([sample for samples in simulations for sample in samples])
                seconds = round(self._seconds_before + time.monotonic() - started, 3)
                records = []
                for proposal, samples in zip(proposals, simulations, strict=True):
                    for rollout, sample in enumerate(samples):
                        sample.seconds = seconds
                        records.append(to_record(sample, proposal, rollout, with_tokens=self.log_samples))
                self._log.append(records)
                self._finish_round(proposals, simulations, on_round)
                interrupt.check()
        return self.samples

    def _round_size(self) -> int:
        """Return the simulations of the next round: only rollouts of the last one may exceed a limit."""
        options, results = self.options, self.results
        size = options.parallel_simulations
        if options.max_simulations is not None:
            size = min(size, options.max_simulations - results.n_simulations)
        if options.energy_calls is not None:
            left = options.energy_calls - results.n_calls
            size = min(size, max(1, left // options.rollouts))
        return size

    def _is_done(self, seconds: float) -> bool:
        options, results = self.options, self.results
        limit = options.max_simulations
        if results.n_failed >= GIVE_UP:
            reasons = [s.crystal.energy_reason for s in self.samples if s.crystal.energy_reason]
            self.stopped = (
                f"{options.energy} gave no energy for the last {results.n_failed} crystals ({reasons[-1]})"
            )
        elif limit is None and results.n_idle >= IDLE:
            self.stopped = f"the last {results.n_idle} simulations gave no new plausible crystal"
        return bool(
            self.stopped
            or (limit is not None and results.n_simulations >= limit)
            or (options.energy_calls is not None and results.n_calls >= options.energy_calls)
            or (options.minutes is not None and self._seconds_before + seconds >= 60 * options.minutes)
        )

    def _sample_round(self, proposals: Sequence[Proposal]) -> list[list[SearchSample]]:
        """Sample and check the rollouts of each proposal."""
        from crystallm.crystals import annotation

        n, first = self.options.rollouts, self.results.n_simulations
        rollouts = [(proposal, (first + i) * n + k) for i, proposal in enumerate(proposals) for k in range(n)]
        sampled = list(
            self._sampler.sample(
                [(proposal.ids, len(self._choices[proposal.root].prompt)) for proposal, _ in rollouts],
                seed=self.settings.seed,
                indices=[index for _, index in rollouts],
            )
        )
        crystals = [
            self._generator.crystal(self._choices[proposal.root], sample)
            for (proposal, _), sample in zip(rollouts, sampled, strict=True)
        ]
        new = {crystal.ids: crystal for crystal in crystals if self.results.same_ids(crystal.ids) is None}
        annotation.validate(list(new.values()), self.executor)
        for crystal in crystals:
            earlier = self.results.same_ids(crystal.ids)
            crystal.set_validity((new[crystal.ids] if earlier is None else earlier.crystal).validity)
        samples = [
            SearchSample(crystal, first + i // n, 0.0, rollouts[i][0].move, sample=sample)
            for i, (crystal, sample) in enumerate(zip(crystals, sampled, strict=True))
        ]
        return [samples[k : k + n] for k in range(0, len(samples), n)]

    def _score(self, samples: Sequence[SearchSample]) -> None:
        """Compute the objective of plausible crystals, once for equal ones, with the energies it needs."""
        from crystallm.execution.tasks import Failure

        new = self.results.set_equals(samples)
        energies: list[Any] = self._energies(new) if self.options.needs_energy else [None] * len(new)
        for sample, energy in zip(new, energies, strict=True):
            if isinstance(energy, Failure):
                sample.crystal.energy_reason = energy.reason
                continue
            sample.crystal.energy = energy
            value = self._objective.value(sample.crystal.structure, energy)
            if isinstance(value, str):
                sample.crystal.energy_reason = value
            else:
                sample.crystal.objective = value
        self.results.copy_energies(samples)

    def _energies(self, samples: Sequence[SearchSample]) -> list[Any]:
        """Return the energies of samples, or why they have none."""
        from crystallm.energy import calculations
        from crystallm.execution.devices import energy_device

        device = energy_device(self.settings.device)
        return calculations.score(
            [sample.crystal.structure for sample in samples],
            self.options.energy,
            device=device,
            workers=self.workers,
            seconds=self.options.energy_timeout,
            group=1 if device == "cpu" else calculations.GROUP,
            executor=self.executor,
        )

    def _finish_round(
        self,
        proposals: Sequence[Proposal],
        simulations: Sequence[Sequence[SearchSample]],
        on_round: OnRound,
    ) -> None:
        """Count the samples of a round, and let the policy learn from them."""
        before = len(self.samples)
        self.results.add_round(simulations)
        self._policy.learn(proposals, [[sample.outcome for sample in samples] for samples in simulations])
        on_round(self.state, self.samples[before:])

    def _restore_round(
        self, proposals: Sequence[Proposal], records: Sequence[dict[str, Any]]
    ) -> list[list[SearchSample]]:
        """Return the samples of a round of the log."""
        n = self.options.rollouts
        samples = []
        for i, record in enumerate(records):
            proposal = proposals[i // n]
            if tuple(record["ids"][: len(proposal.ids)]) != proposal.ids or record["root"] != proposal.root:
                raise CrystallmError(
                    f"{str(self.path)!r}, simulation {record['simulation']}: it does not follow from this "
                    "model and seed; was it written on another machine? Choose another folder with --out"
                )
            crystal = self._generator.make_crystal(
                self._choices[proposal.root],
                record["ids"],
                index=record["index"],
                log_likelihood=record["log_likelihood"],
                ended=record["ended"],
            )
            samples.append(from_record(record, crystal))
        return [samples[k : k + n] for k in range(0, len(samples), n)]
