"""Generate crystals for requests with a model: choices, prompts, grammar, sampling. Writes no files."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

from crystallm.crystals import annotation
from crystallm.crystals.crystal import Crystal, Source
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import InputError
from crystallm.execution.batching import AdaptiveBatchSize
from crystallm.generation import compositions
from crystallm.generation.assignment import ChoiceAssignment, Pairs, count_urgent, only_choice, portions
from crystallm.generation.choices import Choice
from crystallm.generation.conditions import as_text, check_conditions
from crystallm.generation.interpretation import InterpretedRequest, interpret
from crystallm.generation.request import Request, SamplingOptions
from crystallm.grammar import factory
from crystallm.models.model import Model
from crystallm.references.library import Library
from crystallm.references.reading.tokens import RelativesReader
from crystallm.sampling import sequence

LOG = logging.getLogger(__name__)
CHECKED_TOGETHER = 256
"""Crystals that are checked together, at most; fewer where checks take more than seconds."""

CHOSEN_TOGETHER = 16
"""Requests for which the network estimates at a time what they leave open, about half a second on a core: the
first crystals of a long list do not wait for the last request."""


class Generator:
    """A model that generates crystals for a list of requests.

    Sample j of request i has the index (samples that the requests before i may take) + j. A crystal depends
    on the list, the settings and its index only, not on which requests are generated together or again.

    Args:
        selection: how many samples a request may take; by default its n.
        first: index of the first sample of each request, for a part of a longer list.
        starts: number of the first sample of each request where earlier ones are generated elsewhere; 0 by
            default. Indices are those of the whole request.
        max_atoms: of cells that are tried where Z is open; None for no limit beyond the usual.
        executor: where crystals are checked; None opens processes for each check.
        library: of known crystals, for a model that reads them; None: it reads none.

    Attributes:
        first: index of the first sample of each.
        starts: number of the first sample of each.

    Raises:
        InputError: an impossible request, or one whose prompt fills the context.
    """

    def __init__(
        self,
        model: Model,
        requests: Sequence[Request | InterpretedRequest],
        settings: SamplingOptions,
        selection: SelectionOptions | None = None,
        *,
        first: Sequence[int] | None = None,
        starts: Sequence[int] | None = None,
        max_atoms: int | None = None,
        executor: Executor | None = None,
        library: Library | None = None,
    ) -> None:
        self.model = model
        self._reader = RelativesReader(library, model.config.n_relatives)
        self.settings = settings
        self.executor = executor
        self.plans = interpret_all(requests, settings, max_atoms)
        for conditions in {plan.conditions for plan in self.plans}:
            check_conditions(model, conditions)
        self._attempts = attempts_of(self.plans, selection)
        self.first = [0, *itertools.accumulate(self._attempts)][:-1] if first is None else list(first)
        self.starts = [0] * len(self.plans) if starts is None else list(starts)
        self._assignment = ChoiceAssignment(model, self.plans, settings, self.first)

    def note(self, index: int) -> str:
        """Describe how a request was interpreted and, where it leaves something open, what is tried."""
        if self.plans[index].wanted is not None:
            return self.plans[index].note  # each sample has a composition of its own
        return self._assignment.choices(index)[1]

    def choices(self, index: int) -> list[Choice]:
        """Return what the samples of a request may be given, with weights."""
        return self._assignment.choices(index)[0]

    def grammar(self, index: int) -> sequence.Grammar | None:
        """Return what may follow the prompts of a request, and their continuations; None for anything.

        Raises:
            InputError: there is no grammar for the request.
        """
        choices = self.choices(index)
        return self._grammar([(index, 0)] * len(choices), choices)

    def check(self) -> None:
        """Check that each request can be generated; of several Z, the smallest.

        Raises:
            InputError: there is no grammar for one, or its prompt fills the context.
        """
        for index, plan in enumerate(self.plans):
            if plan.wanted is not None:
                compositions.check(self.model, plan.wanted)
            elif plan.cells:
                smallest = only_choice(self.model, replace(plan, cell=plan.cells[0]))
                self._grammar([(index, 0)], [smallest])
            elif not plan.any_group:
                self._grammar([(index, 0)], self.choices(index)[:1])

    def generate(
        self, indices: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Generate the crystals of some requests, with full batches across requests.

        Returns:
            An iterator over the lists of crystals, one per request, in the order of `indices` and of the
            samples. Works as it is advanced.

        Raises:
            InputError: if there is no grammar for a request; at once, if it is the first.
        """
        counts = [self.plans[index].request.n for index in indices]
        pairs = [
            (index, self.starts[index] + j)
            for index, n in zip(indices, counts, strict=True)
            for j in range(n)
        ]
        crystals = self._crystals(pairs, progress, count_urgent(pairs, CHOSEN_TOGETHER))
        return (list(itertools.islice(crystals, n)) for n in counts)

    def generate_valid(
        self, indices: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Generate and check the crystals of some requests until each has its n valid ones.

        Args:
            progress: called with the number of valid crystals so far.

        Returns:
            An iterator over the lists of crystals, one per request, in the order of `indices`: all samples up
            to the last valid one that was needed, or to the limit of the selection, however many at a time.

        Raises:
            InputError: while iterating, if there is no grammar for a request.
        """
        n_before = 0
        todo = list(indices)
        batch = AdaptiveBatchSize(CHECKED_TOGETHER)
        while todo:
            group: list[int] = []
            while todo and sum(self.plans[index].request.n for index in group) < batch.size:
                group.append(todo.pop(0))
            crystals: dict[int, list[Crystal]] = {index: [] for index in group}
            while pairs := [
                (index, len(crystals[index]) + j)
                for index in group
                for j in range(self._next_batch_size(index, crystals[index]))
            ]:
                new = list(self._crystals(pairs))
                annotation.validate(new, self.executor)
                for (index, _), crystal in zip(pairs, new, strict=True):
                    crystals[index].append(crystal)
                if progress is not None:
                    progress(n_before + sum(_n_valid(self.plans[index], crystals[index]) for index in group))
            for index in group:
                n_before += _n_valid(self.plans[index], crystals[index])
                yield until_nth_valid(crystals[index], self.plans[index].request.n)
            batch.done(sum(map(len, crystals.values())))

    def _next_batch_size(self, index: int, crystals: Sequence[Crystal]) -> int:
        """Return the number of samples to draw next, from the acceptance rate so far."""
        n_valid = count_valid(crystals)
        missing = self.plans[index].request.n - n_valid
        if missing <= 0:
            return 0
        share = (n_valid + 1) / (len(crystals) + 1)
        return min(math.ceil(missing / share), self._attempts[index] - len(crystals))

    def _crystals(
        self, pairs: Pairs, progress: Callable[[int], None] | None = None, n_urgent: int = 0
    ) -> Iterator[Crystal]:
        """Yield the crystal of each (index of a request, number of the sample in it)."""
        from crystallm.sampling.sample import sample_stream

        chosen: list[Choice] = []
        requests = self._sequences(pairs, chosen)
        first = list(itertools.islice(requests, 1))  # raises at once
        samples = sample_stream(
            self.model.network,
            itertools.chain(first, requests),
            n=len(pairs),
            batch_size=self.settings.batch_size,
            guided=self.settings.guidance != 1 and any(self.plans[index].conditions for index, _ in pairs),
            n_urgent=n_urgent,
            progress=None if progress is None else lambda done, _: progress(done),
        )
        return (self.crystal(chosen[i], sample) for i, sample in enumerate(samples))

    def _sequences(self, pairs: Pairs, chosen: list[Choice]) -> Iterator[sequence.SequenceRequest]:
        """Yield the sequence of each sample, and append its choice to `chosen`."""
        options = self.sequence_options()
        for some in portions(pairs, CHOSEN_TOGETHER):
            assigned = self._assignment.assign(some)
            chosen += (choices := [choice for choice, _ in assigned])
            grammar = self._grammar(some, choices)
            for (index, j), (choice, point) in zip(some, assigned, strict=True):
                i, seed, read = self.first[index] + j, self.settings.seed, self._reader.tokens(choice.cell)
                yield sequence.SequenceRequest(
                    choice.prompt, options, seed, i, grammar, choice.conditions, read, point
                )

    def sequence_requests(
        self, index: int
    ) -> list[tuple[sequence.SequenceRequest, Callable[[sequence.Sample], Crystal]]]:
        """Return the samples of a request, to be sampled elsewhere, and what makes a crystal of each.

        Raises InputError: there is no grammar for the request, or its sequences cannot be sampled.
        """
        from crystallm.sampling.sample import check_request

        pairs = [(index, self.starts[index] + j) for j in range(self.plans[index].request.n)]
        choices: list[Choice] = []
        requests = list(self._sequences(pairs, choices))
        for request in {request.prompt: request for request in requests}.values():
            check_request(self.model.network, request)
        return [
            (request, partial(self.crystal, choice))
            for request, choice in zip(requests, choices, strict=True)
        ]

    def sequence_options(self) -> sequence.DecodingOptions:
        """Return how each token sequence is sampled."""
        language, settings = self.model.language, self.settings
        return sequence.DecodingOptions(
            sequence.Stop(language.end_ids, slide=language.slides),
            settings.temperature,
            settings.top_k,
            settings.top_p,
            settings.max_new_tokens,
            settings.guidance,
        )

    def crystal(self, choice: Choice, sample: sequence.Sample) -> Crystal:
        """Return the crystal of a token sequence that was sampled for a choice."""
        return self.make_crystal(
            choice,
            sample.ids,
            index=sample.index,
            log_likelihood=sample.log_likelihood + choice.log_likelihood,
            ended=sample.ended,
        )

    def make_crystal(
        self, choice: Choice, ids: Sequence[int], *, index: int, log_likelihood: float, ended: bool
    ) -> Crystal:
        """Return the crystal of token ids; see `Crystal`."""
        return Crystal(
            self.model.language,
            ids,
            n_prompt=choice.n_requested,
            log_likelihood=log_likelihood,
            ended=ended,
            source=Source(
                self.model.name,
                self.settings.seed,
                index,
                choice.note,
                z_probability=choice.z_probability,
                space_group_probability=choice.space_group_probability,
                conditions=as_text(self.model, choice.conditions),
            ),
        )

    def _grammar(self, pairs: Pairs, choices: Sequence[Choice]) -> sequence.Grammar | None:
        """Return what may follow each prompt; None for anything."""
        plans = [self.plans[index] for index, _ in pairs]
        return _grammar_by_prompt(self.model, self.settings.constraints, plans, choices, self._reader)


def _grammar_by_prompt(
    model: Model,
    constraints: str,
    plans: Sequence[InterpretedRequest],
    choices: Sequence[Choice],
    reader: RelativesReader,
) -> GrammarByPrompt | None:
    """Return what may follow the prompt of each choice; None for anything.

    Args:
        reader: of what the network reads before each prompt.
    """
    grammars: dict[tuple[int, ...], sequence.Grammar] = {}
    for plan, choice in zip(plans, choices, strict=True):
        if choice.prompt in grammars:
            continue
        grammar = factory.make_grammar(
            model.language.name,
            None if choice.cell is None else choice.cell.composition,
            choice.space_group,
            constraints,
            model.config.context - len(reader.tokens(choice.cell)),
        )
        if grammar is None:
            continue
        if plan.request.prompt is not None:
            try:
                grammar.start(choice.prompt)
            except InputError as error:
                raise InputError(
                    f"the prompt breaks the grammar: {error}; or set constraints to none"
                ) from None
        grammars[choice.prompt] = grammar
    return GrammarByPrompt(grammars) if grammars else None


def interpret_all(
    requests: Sequence[Request | InterpretedRequest], settings: SamplingOptions, max_atoms: int | None
) -> list[InterpretedRequest]:
    """Interpret the requests that are not interpreted yet; raises as `interpret`."""
    full = settings.constraints == "full"
    return [
        request
        if isinstance(request, InterpretedRequest)
        else interpret(request, fitting=full, max_atoms=max_atoms)
        for request in requests
    ]


def attempts_of(plans: Sequence[InterpretedRequest], selection: SelectionOptions | None) -> list[int]:
    """Return how many samples each request may take."""
    counts = [plan.request.n for plan in plans]
    return counts if selection is None else [selection.attempts(n) for n in counts]


def count_valid(crystals: Sequence[Crystal]) -> int:
    """Return how many crystals are plausible."""
    return sum(crystal.validity.plausible for crystal in crystals)


def _n_valid(plan: InterpretedRequest, crystals: Sequence[Crystal]) -> int:
    """Return the number of valid crystals, at most the n of the request."""
    return min(count_valid(crystals), plan.request.n)


def until_nth_valid(crystals: list[Crystal], n: int) -> list[Crystal]:
    """Return the crystals up to the n-th valid one; all if there are fewer."""
    so_far = itertools.accumulate(crystal.validity.plausible for crystal in crystals)
    last = next((j for j, count in enumerate(so_far) if count == n), len(crystals))
    return crystals[: last + 1]


class GrammarByPrompt:
    """The grammars of several requests, by their prompts."""

    def __init__(self, grammars: Mapping[tuple[int, ...], sequence.Grammar]) -> None:
        self._grammars = grammars

    def start(self, prompt: Sequence[int]) -> sequence.GrammarState:
        """Return the state after a prompt or a longer prefix."""
        prefix = tuple(prompt)
        if prefix not in self._grammars:
            known = (ids for ids in self._grammars if prefix[: len(ids)] == ids)
            longest = max(known, key=len, default=None)
            if longest is None:
                return Unconstrained()
            prefix = longest
        return self._grammars[prefix].start(prompt)


class Unconstrained:
    """No grammar: all tokens are allowed."""

    def allowed(self) -> Sequence[int] | None:
        """Return None: all tokens."""
        return None

    def advance(self, token: int) -> None:
        """Accept any token."""
