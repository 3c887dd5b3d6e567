"""Which choice, a cell, space group and prompt, each sample of a request takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from crystallm.errors import InputError, TextError
from crystallm.generation.choices import Choice, OpenChoices, assign_by_weight, choices_of_many
from crystallm.generation.compositions import CompositionSampler
from crystallm.generation.conditions import RequestedCondition, conditioned, values_of
from crystallm.generation.interpretation import InterpretedRequest
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.model import Model

Pairs = Sequence[tuple[int, int]]
"""Index of a request and number of a sample in it."""


class ChoiceAssignment:
    """The choices of a list of requests, and which sample takes which.

    What a request leaves open is weighted by the network when it is first needed, for all requests that need
    it at the same time together.

    Raises:
        InputError: a request that the language cannot express, or whose prompt fills the context.
    """

    def __init__(
        self,
        model: Model,
        requests: Sequence[InterpretedRequest],
        settings: SamplingOptions,
        first: Sequence[int],
    ) -> None:
        self._model = model
        self._requests = requests
        self._settings = settings
        self._first = first
        self._compositions: dict[tuple[RequestedCondition, ...], CompositionSampler] = {}
        self._choices: dict[int, tuple[list[Choice], str]] = {}
        self._by_request: dict[Request, tuple[list[Choice], str]] = {}
        for index, request in enumerate(requests):
            if not (request.cells or request.any_group or request.wanted):
                self._choices[index] = ([only_choice(model, request)], request.note)

    def choices(self, index: int) -> tuple[list[Choice], str]:
        """Return the choices of a request with their weights, and how the request was interpreted."""
        request = self._requests[index]
        if request.wanted is not None:
            return self._sampler(request).choices(request, self._first[index]), request.note
        self._weight([index])
        return self._choices[index]

    def assign(self, samples: Sequence[tuple[int, int]]) -> list[tuple[Choice, float | None]]:
        """Return the choice of each (index of a request, number of the sample in it), and its point.

        For points see `choices.assign_by_weight`. With conditions there are none: the values of conditions
        are spread over the samples by the same ratio.
        """
        self._weight(dict.fromkeys(index for index, _ in samples))
        assigned: list[tuple[Choice, float]] = []
        for index, group in itertools.groupby(samples, key=lambda pair: pair[0]):
            numbers = [number for _, number in group]
            if self._requests[index].wanted is not None:
                request = self._requests[index]
                assigned += self._sampler(request).assign(request, self._first[index], numbers)
                continue
            choices, _ = self._choices[index]
            weights = [choice.weight for choice in choices]
            taken = assign_by_weight(weights, self._settings.seed, self._first[index], numbers)
            assigned += [(choices[i], point) for i, point in taken]
        return [
            (
                self._with_conditions(choice, index, number),
                None if self._requests[index].conditions else point,
            )
            for (choice, point), (index, number) in zip(assigned, samples, strict=True)
        ]

    def _with_conditions(self, choice: Choice, index: int, sample: int) -> Choice:
        """Return a choice with the values that a sample of a request is given."""
        requested, first = self._requests[index].conditions, self._first[index]
        if not requested:
            return choice
        seed = self._settings.seed
        return replace(
            choice, conditions=values_of(self._model, requested, seed=seed, first=first, sample=sample)
        )

    def _sampler(self, request: InterpretedRequest) -> CompositionSampler:
        """Return what draws the compositions of requests with these conditions."""
        if request.conditions not in self._compositions:
            model = conditioned(self._model, request.conditions, self._settings.guidance)
            self._compositions[request.conditions] = CompositionSampler(model, self._settings)
        return self._compositions[request.conditions]

    def _weight(self, indices: Iterable[int]) -> None:
        """Estimate the probabilities of what requests leave open; equal requests share the result."""
        left = {
            index: self._requests[index].request.model_copy(update={"n": 1})
            for index in indices
            if index not in self._choices and self._requests[index].wanted is None
        }
        new: dict[tuple[RequestedCondition, ...], dict[Request, OpenChoices]] = {}
        for index, key in left.items():
            if key not in self._by_request:
                request = self._requests[index]
                cells = request.cells or (() if request.cell is None else (request.cell,))
                choices = OpenChoices(cells, request.space_group, bool(request.cells), request.any_group)
                new.setdefault(request.conditions, {})[key] = choices
        for conditions, of_requests in new.items():
            model = conditioned(self._model, conditions, self._settings.guidance)
            results = choices_of_many(model, list(of_requests.values()), self._settings)
            self._by_request.update(zip(of_requests, results, strict=True))
        self._choices |= {index: self._by_request[key] for index, key in left.items()}


def only_choice(model: Model, request: InterpretedRequest) -> Choice:
    """Return the choice of a request that leaves nothing open but what the network samples itself.

    Raises:
        InputError: the language cannot express it, or its prompt fills the context.
    """
    language, context = model.language, model.config.context
    number = None if request.space_group is None else request.space_group.number
    if request.request.prompt is None:
        ids = language.prompt(None if request.cell is None else request.cell.composition, number)
    else:
        try:
            ids = language.ids(request.request.prompt)
        except TextError as error:
            raise InputError(f"the prompt is not in the language {language.name!r}: {error}") from None
    if len(ids) >= context:
        raise InputError(
            f"the prompt ({request.note}) has {len(ids)} tokens, and the context of the model {model.name!r} "
            f"holds {context}: shorten it, or choose a model with a longer context"
        )
    return Choice(tuple(ids), len(ids), request.cell, number, request.note)


def portions(pairs: Pairs, n_requests: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the samples of a number of requests at a time."""
    by_request = (list(group) for _, group in itertools.groupby(pairs, key=lambda pair: pair[0]))
    while portion := list(itertools.islice(by_request, n_requests)):
        yield list(itertools.chain.from_iterable(portion))


def count_urgent(pairs: Pairs, n: int) -> int:
    """Return how many samples of a list, at least n, are sampled before others are; 0 for a single request.

    Results of a list are shown request by request, those of one request together.
    """
    n_first = sum(index == pairs[0][0] for index, _ in pairs)
    return 0 if n_first == len(pairs) else max(n, n_first)
