"""From requests to crystals: choices, prompts, rules, sampling. What the command line and Python call.

Knows how the parts fit together, and none of their insides. Writes no files.
"""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from crystallm.errors import InputError, TextError
from crystallm.execution.batching import AdaptiveBatchSize
from crystallm.generation.interpretation import InterpretedRequest, interpret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from crystallm.crystals.crystal import Crystal
    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.choices import Choice
    from crystallm.generation.compositions import CompositionSampler
    from crystallm.generation.request import Request, SamplingOptions
    from crystallm.models.model import Model
    from crystallm.sampling.sequence import Grammar, GrammarState, Options, Sample, SequenceRequest


LOG = logging.getLogger(__name__)

JUDGED_TOGETHER = 256
"""Crystals that are judged together, at most; fewer where these take more than seconds."""

_SAMPLING = {"temperature", "top_k", "top_p", "seed", "batch_size", "max_new_tokens"}
"""The settings that `decode.sample` takes as they are."""


class Generator:
    """A model at work on a list of requests.

    Sample j of request i has the index (samples that the requests before i may take) + j, so a crystal
    depends on the list, the settings and its place only, not on which requests are done together or again.

    Args:
        model: loaded.
        requests: all of the run.
        settings: how to sample.
        selection: how many samples a request may take; by default as many as it asks for.
        first: index of the first sample of each request, for requests that are part of a longer list.
        starts: number of the first sample to write of each request, where others write those before; 0 if
            None. The indices are those of the whole request.
        most_atoms: of the cells that are tried where Z is to be chosen; None for as many as suit.
        executor: where crystals are checked; None opens processes for each check.

    Attributes:
        plans: each request understood.
        first: index of the first sample of each.
        starts: number of the first sample to write of each.

    Raises:
        InputError: a request that cannot be understood or written, or whose prompt fills the context.
    """

    def __init__(
        self,
        model: Model,
        requests: Sequence[Request],
        settings: SamplingOptions,
        selection: SelectionOptions | None = None,
        *,
        first: Sequence[int] | None = None,
        starts: Sequence[int] | None = None,
        most_atoms: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.executor = executor
        full = settings.constraints == "full"
        self.plans = [interpret(request, fitting=full, most_atoms=most_atoms) for request in requests]
        self._tries = [
            request.n if selection is None else selection.attempts(request.n) for request in requests
        ]
        self.first = [0, *itertools.accumulate(self._tries)][:-1] if first is None else list(first)
        self.starts = [0] * len(self.plans) if starts is None else list(starts)
        self._choices: dict[int, tuple[list[Choice], str]] = {}
        self._weighed: dict[Request, tuple[list[Choice], str]] = {}
        self._drawer: CompositionSampler | None = None
        for unit, plan in enumerate(self.plans):
            if not (plan.cells or plan.any_group or plan.wanted):
                self._choices[unit] = ([self._only_choice(plan)], plan.note)

    def note(self, unit: int) -> str:
        """How a request was read and, where something was left to choose, what is tried with which weight."""
        if self.plans[unit].wanted is not None:
            return self.plans[unit].note  # each sample has a composition of its own
        return self._open(unit)[1]

    def choices(self, unit: int) -> list[Choice]:
        """What samples of a request may be given, with weights; weighed by the network when first needed."""
        return self._open(unit)[0]

    def rules(self, unit: int) -> Grammar | None:
        """What may be written behind each of these, and behind all that begins with one; None for anything.

        Raises:
            InputError: no rule can be made for the request.
        """
        choices = self.choices(unit)
        return self._rules([(unit, 0)] * len(choices), choices)

    def check(self) -> None:
        """Look whether each request can be written; of several Z, the smallest.

        Raises:
            InputError: there are no rules for one, or its prompt fills the context.
        """
        for unit, plan in enumerate(self.plans):
            if plan.wanted is not None:
                from crystallm.generation import compositions

                compositions.check(self.model, plan.wanted)
            elif plan.cells:
                smallest = self._only_choice(replace(plan, cell=plan.cells[0]))
                self._rules([(unit, 0)], [smallest])
            elif unit in self._choices:
                self._rules([(unit, 0)], self._choices[unit][0][:1])

    def write(
        self, units: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Write the crystals of some requests.

        Requests are put together until a batch is full.

        Args:
            units: which requests.
            progress: called with the number of crystals written so far, those of `units` alone counted.

        Returns:
            An iterator over the lists of crystals, one list a unit, in the order of `units`, each list in the
            order of the samples. The work is done as it is drawn from.

        Raises:
            InputError: at once, if no rule can be made for a request.
        """
        counts = [self.plans[unit].request.n for unit in units]
        places = zip(units, counts, strict=True)
        found = self._samples(
            [(unit, self.starts[unit] + j) for unit, n in places for j in range(n)], progress
        )
        return (list(itertools.islice(found, n)) for n in counts)

    def write_valid(
        self, units: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Write and judge the crystals of some requests until each has as many valid ones as it asks for.

        Args:
            units: which requests.
            progress: called with the number of valid crystals so far.

        Returns:
            An iterator over the lists of crystals, one list a unit, in the order of `units`: all that were
            written, broken ones too, up to the last valid one that was needed, or to the bound of the
            selection. They do not depend on how many were written at a time.

        Raises:
            InputError: while drawing, if no rule can be made for a request.
        """
        from crystallm.crystals import annotation

        n_before = 0
        todo = list(units)
        portion = AdaptiveBatchSize(JUDGED_TOGETHER)
        while todo:
            group: list[int] = []
            while todo and sum(self.plans[unit].request.n for unit in group) < portion.size:
                group.append(todo.pop(0))
            found: dict[int, list[Crystal]] = {unit: [] for unit in group}
            while pairs := [
                (unit, len(found[unit]) + j)
                for unit in group
                for j in range(self._further(unit, found[unit]))
            ]:
                crystals = list(self._samples(pairs))
                annotation.validate(crystals, self.executor)
                for (unit, _), crystal in zip(pairs, crystals, strict=True):
                    found[unit].append(crystal)
                if progress is not None:
                    valid = (min(count_valid(found[unit]), self.plans[unit].request.n) for unit in group)
                    progress(n_before + sum(valid))
            for unit in group:
                n = self.plans[unit].request.n
                n_before += min(count_valid(found[unit]), n)
                valid_so_far = itertools.accumulate(crystal.validity.valid for crystal in found[unit])
                last = next((j for j, count in enumerate(valid_so_far) if count == n), len(found[unit]))
                yield found[unit][: last + 1]
            portion.done(sum(map(len, found.values())))

    def _further(self, unit: int, found: Sequence[Crystal]) -> int:
        """How many crystals to write next, so that few too many and few rounds are likely."""
        n_valid = count_valid(found)
        missing = self.plans[unit].request.n - n_valid
        if missing <= 0:
            return 0
        share = (n_valid + 1) / (len(found) + 1)
        return min(math.ceil(missing / share), self._tries[unit] - len(found))

    def _samples(
        self, pairs: Sequence[tuple[int, int]], progress: Callable[[int], None] | None = None
    ) -> Iterator[Crystal]:
        """Crystals of (unit, number of the sample in it), in this order."""
        from crystallm.sampling import sample as sampling_sample

        chosen = self._chosen(pairs)
        options = self._options()
        samples = sampling_sample.sample(
            self.model.network,
            [choice.prompt for choice in chosen],
            stop=options.stop,
            indices=[self.first[unit] + j for unit, j in pairs],
            rules=self._rules(pairs, chosen),
            progress=None if progress is None else lambda done, _: progress(done),
            **self.settings.model_dump(include=_SAMPLING),
        )
        return (self._crystal(choice, sample) for choice, sample in zip(chosen, samples, strict=True))

    def drafts(self, unit: int) -> list[tuple[SequenceRequest, Callable[[Sample], Crystal]]]:
        """The samples of a request, for whoever writes them elsewhere, one text after the other.

        Returns:
            For each sample what is to be written, and what makes a crystal of that.

        Raises:
            InputError: no rule can be made for the request, or its texts cannot be written.
        """
        from crystallm.sampling import sample as sampling_sample
        from crystallm.sampling import sequence

        pairs = [(unit, self.starts[unit] + j) for j in range(self.plans[unit].request.n)]
        chosen = self._chosen(pairs)
        rules, options = self._rules(pairs, chosen), self._options()
        made: list[tuple[SequenceRequest, Callable[[Sample], Crystal]]] = [
            (
                sequence.SequenceRequest(
                    choice.prompt, options, self.settings.seed, self.first[unit] + j, rules
                ),
                partial(self._crystal, choice),
            )
            for (_, j), choice in zip(pairs, chosen, strict=True)
        ]
        for draft in {draft.prompt: draft for draft, _ in made}.values():
            sampling_sample.check(self.model.network, draft)
        return made

    def _options(self) -> Options:
        from crystallm.sampling import sequence

        language, settings = self.model.language, self.settings
        return sequence.Options(
            sequence.Stop(language.end_ids, slide=language.slides),
            settings.temperature,
            settings.top_k,
            settings.top_p,
            settings.max_new_tokens,
        )

    def _crystal(self, choice: Choice, sample: Sample) -> Crystal:
        """What a sample is, written for a choice."""
        from crystallm.crystals.crystal import Crystal, Source

        return Crystal(
            self.model.language,
            sample.ids,
            n_prompt=choice.n_asked,
            log_likelihood=sample.log_likelihood + choice.log_likelihood,
            ended=sample.ended,
            source=Source(
                self.model.name,
                self.settings.seed,
                sample.index,
                choice.note,
                z_weight=choice.z_weight,
                space_group_weight=choice.space_group_weight,
            ),
        )

    def _chosen(self, pairs: Sequence[tuple[int, int]]) -> list[Choice]:
        """What each sample is given."""
        from crystallm.generation import choices as generation_choices

        self._weigh(dict.fromkeys(unit for unit, _ in pairs))
        chosen: list[Choice] = []
        for unit, together in itertools.groupby(pairs, key=lambda pair: pair[0]):
            samples = [j for _, j in together]
            if self.plans[unit].wanted is not None:
                chosen += self._compositions().taken(self.plans[unit], self.first[unit], samples)
                continue
            choices, _ = self._open(unit)
            if len(choices) == 1:
                chosen += choices * len(samples)
                continue
            weights = [choice.weight for choice in choices]
            taken = generation_choices.assign_by_weight(
                weights, self.settings.seed, self.first[unit], samples
            )
            chosen += [choices[i] for i in taken]
        return chosen

    def _compositions(self) -> CompositionSampler:
        """What draws compositions that are the network's to choose within what was asked."""
        from crystallm.generation import compositions

        if self._drawer is None:
            self._drawer = compositions.CompositionSampler(self.model, self.settings)
        return self._drawer

    def _open(self, unit: int) -> tuple[list[Choice], str]:
        """The choices of a request, and what to say of them; weighed by the network when first needed."""
        plan = self.plans[unit]
        if plan.wanted is not None:
            return self._compositions().able(plan, self.first[unit]), plan.note
        self._weigh([unit])
        return self._choices[unit]

    def _weigh(self, units: Iterable[int]) -> None:
        """Weigh what requests leave open, all that has not been weighed before together."""
        from crystallm.generation import choices as generation_choices

        left = {
            unit: self.plans[unit].request.model_copy(update={"n": 1})
            for unit in units
            if unit not in self._choices and self.plans[unit].wanted is None
        }
        new: dict[Request, generation_choices.OpenChoices] = {}
        for unit, asked in left.items():
            if asked not in self._weighed:
                plan = self.plans[unit]
                cells = plan.cells or (() if plan.cell is None else (plan.cell,))
                new[asked] = generation_choices.OpenChoices(
                    cells, plan.space_group, bool(plan.cells), plan.any_group
                )
        if new:
            found = generation_choices.choices_of_many(self.model, list(new.values()), self.settings)
            self._weighed.update(zip(new, found, strict=True))
        self._choices |= {unit: self._weighed[asked] for unit, asked in left.items()}

    def _only_choice(self, plan: InterpretedRequest) -> Choice:
        """What the network is given where nothing is to be chosen.

        Raises:
            InputError: the language cannot say it, or it leaves no room in the context.
        """
        from crystallm.generation.choices import Choice

        language = self.model.language
        number = None if plan.space_group is None else plan.space_group.number
        if plan.request.prompt is not None:
            try:
                ids = language.ids(plan.request.prompt)
            except TextError as error:
                raise InputError(
                    f"the prompt is no text of the language {language.name!r}: {error}"
                ) from None
        else:
            ids = language.prompt(None if plan.cell is None else plan.cell.composition, number)
        context = self.model.config.context
        if len(ids) >= context:
            raise InputError(
                f"the prompt ({plan.note}) has {len(ids)} tokens, and the context of the model "
                f"{self.model.name!r} holds {context}: ask for less, or take a model with a longer one"
            )
        return Choice(tuple(ids), len(ids), plan.cell, number, plan.note)

    def _rules(self, pairs: Sequence[tuple[int, int]], chosen: Sequence[Choice]) -> Grammar | None:
        """What may be written behind each prompt."""
        from crystallm.grammar import factory

        found: dict[tuple[int, ...], Grammar] = {}
        for (unit, _), choice in zip(pairs, chosen, strict=True):
            if choice.prompt in found:
                continue
            rules = factory.make_grammar(
                self.model.language.name,
                None if choice.cell is None else choice.cell.composition,
                choice.space_group,
                self.settings.constraints,
                self.model.config.context,
            )
            if rules is None:
                continue
            if self.plans[unit].request.prompt is not None:
                try:
                    rules.start(choice.prompt)
                except InputError as error:
                    raise InputError(
                        f"the prompt breaks the rules: {error}; or take constraints none"
                    ) from None
            found[choice.prompt] = rules
        return _ByPrompt(found) if found else None


def count_valid(crystals: Sequence[Crystal]) -> int:
    """Return how many crystals are valid."""
    return sum(crystal.validity.valid for crystal in crystals)


class _ByPrompt:
    """The rules of several requests, told apart by what they begin with."""

    def __init__(self, rules: Mapping[tuple[int, ...], Grammar]) -> None:
        self._rules = rules

    def start(self, prompt: Sequence[int]) -> GrammarState:
        begun = tuple(prompt)
        known = begun if begun in self._rules else max(self._beginning(begun), key=len, default=None)
        return _Free() if known is None else self._rules[known].start(prompt)

    def _beginning(self, ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The prompts that a text begins with."""
        return (prompt for prompt in self._rules if ids[: len(prompt)] == prompt)


class _Free:
    """No rule: all tokens may come next."""

    def allowed(self) -> Sequence[int] | None:
        return None

    def advance(self, token: int) -> None:
        pass
