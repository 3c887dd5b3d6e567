"""What a request leaves open, Z or the space group, shared out by the network's own likelihood.

The weight of Z is that of `weighing`; at a temperature T it is taken to the power of 1/T.

The weight of a space group is what plain sampling gives it behind the composition: the network's
probability among the groups that can hold the composition, under temperature, top_k and top_p.

Sample j of a request takes what stands at u_j = (u_0 + j phi) mod 1 of the cumulative weights, with phi the
golden ratio and u_0 drawn from the seed: each sample is a fair draw, any number of samples in a row cover the
choices nearly in proportion, and a sample does not depend on how many there are.

Refuses to know what is written behind the prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.errors import InputError
from crystallm.generation import formula_units
from crystallm.grammar import text_length
from crystallm.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.crystallography.formula import Cell
    from crystallm.crystallography.space_groups import SpaceGroup
    from crystallm.generation.formula_units import Told
    from crystallm.generation.request import SamplingOptions
    from crystallm.models.model import Model

GOLDEN = (math.sqrt(5) - 1) / 2
_NEGLIGIBLE = 1e-6  # a choice with less weight is not tried
_SHOWN = 5  # choices that a note names


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to fill in what a request leaves open.

    Attributes:
        prompt: tokens that the network is given.
        n_asked: how many of them say what was asked for, and not what was chosen here.
        cell: what the cell holds; None if that is left to the network.
        space_group: number; None if that is left to the network.
        weight: share of the samples.
        z_probability: of its Z among the values tried; None where Z was not open.
        space_group_probability: of its group among those of its Z; None where the group was not open.
        log_likelihood: of what was chosen, given what was asked for, in the network at temperature 1, nats.
    """

    prompt: tuple[int, ...]
    n_asked: int
    cell: Cell | None
    space_group: int | None
    note: str
    weight: float = 1.0
    z_probability: float | None = None
    space_group_probability: float | None = None
    log_likelihood: float = 0.0


@dataclass(frozen=True, slots=True)
class OpenChoices:
    """What a request leaves open.

    Attributes:
        any_z: whether Z is to be chosen; else there is one cell.
    """

    cells: tuple[Cell, ...]
    group: SpaceGroup | None
    any_z: bool
    any_group: bool


def choices_of_many(
    model: Model, questions: Sequence[OpenChoices], settings: SamplingOptions
) -> list[tuple[list[Choice], str]]:
    """All that is tried for each of some requests, with its weight; their Z are weighed together.

    Returns:
        For each request the choices, those of weight 0 left out, by Z and number of the group; and one line
        that says what was tried with which weight.

    Raises:
        InputError: nothing of a request can be told to the network.
    """
    told = [_told(model, question) for question in questions]
    open_z = [place for place, question in enumerate(questions) if question.any_z]
    asked = [(told[place], _number(questions[place])) for place in open_z]
    weighed = dict(zip(open_z, formula_units.likely(model, asked), strict=True))
    one = np.zeros(1)
    return [
        _choices(model, question, settings, *weighed.get(place, (told[place], one)))
        for place, question in enumerate(questions)
    ]


def _told(model: Model, question: OpenChoices) -> list[Told]:
    """The cells of a question that can be told to the network, with their prompts."""
    number = _number(question)
    prompts = _prompts(model, [(cell, number) for cell in question.cells])
    kept = [
        (cell, prompt) for cell, prompt in zip(question.cells, prompts, strict=True) if prompt is not None
    ]
    if not kept:
        cell = question.cells[0]
        model.language.prompt(cell.composition, number)  # raises, and knows why
        raise InputError(
            f"a cell of {cell.formula} fills the context of the model {model.name!r}: ask for less"
        )
    return kept


def _number(question: OpenChoices) -> int | None:
    return None if question.group is None else question.group.number


def _choices(
    model: Model, question: OpenChoices, settings: SamplingOptions, kept: Sequence[Told], log_p: Any
) -> tuple[list[Choice], str]:
    """The choices of a question whose Z have been weighed."""
    number, group, any_z, any_group = _number(question), question.group, question.any_z, question.any_group
    z_probabilities = _tempered(log_p, settings.temperature) if any_z else np.ones(1)
    found: list[Choice] = []
    for (cell, prompt), log_z, z_probability in zip(
        kept, log_p.tolist(), z_probabilities.tolist(), strict=True
    ):
        if z_probability < _NEGLIGIBLE:
            continue
        of_z = f"; {_percent(z_probability)} of z = auto" if any_z else ""
        if not any_group:
            where = "" if group is None else f", {group.symbol} (no. {group.number})"
            found.append(
                Choice(
                    prompt=tuple(prompt),
                    n_asked=len(prompt),
                    cell=cell,
                    space_group=number,
                    note=f"{cell.note}{where}{of_z}",
                    weight=z_probability,
                    z_probability=z_probability if any_z else None,
                    log_likelihood=log_z,
                )
            )
            continue
        for chosen, told, weight, log_group in _groups(model, cell, settings):
            symbol = space_groups.get(chosen).symbol
            of_group = f"; {_percent(weight)} of space group = auto"
            found.append(
                Choice(
                    prompt=told,
                    n_asked=len(prompt),
                    cell=cell,
                    space_group=chosen,
                    note=f"{cell.note}, {symbol} (no. {chosen}){of_z}{of_group}",
                    weight=z_probability * weight,
                    z_probability=z_probability if any_z else None,
                    space_group_probability=weight,
                    log_likelihood=log_z + log_group,
                )
            )
    return found, _summary(found, question.cells[0], group, any_z=any_z, any_group=any_group)


def assign_by_weight(weights: Sequence[float], seed: int, index: int, samples: Sequence[int]) -> list[int]:
    """Which choice each sample takes; see the module.

    Args:
        index: of the request's first sample in the run.
    """
    # The random stream of sample `index` itself starts at counter 0, and never comes this far.
    stream = np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=np.array([0, 0, 0, 1]))
    first = float(np.random.Generator(stream).random())
    cumulative = np.cumsum(weights)
    points = (first + GOLDEN * np.asarray(samples, dtype=np.float64)) % 1.0
    taken = np.searchsorted(cumulative, points * cumulative[-1], side="right")
    return [min(int(i), len(weights) - 1) for i in taken]


def _prompts(model: Model, asked: Sequence[tuple[Cell, int | None]]) -> list[list[int] | None]:
    """The prompt of each cell and group; None where the language cannot say it, or the context hold it."""
    prompts: list[list[int] | None] = []
    for cell, number in asked:
        try:
            prompt = model.language.prompt(cell.composition, number)
        except InputError:
            prompts.append(None)
        else:
            prompts.append(prompt if len(prompt) < model.config.context else None)
    return prompts


def _groups(
    model: Model, cell: Cell, settings: SamplingOptions
) -> Iterator[tuple[int, tuple[int, ...], float, float]]:
    """Space groups of a cell: number, prompt, weight, log-likelihood behind the composition."""
    counts = tuple(sorted(count for _, count in cell.composition))
    context = None if model.language.slides else model.config.context
    full = settings.constraints == "full"
    numbers = text_length.groups_within(counts, context) if full else range(1, 231)
    told = zip(numbers, _prompts(model, [(cell, number) for number in numbers]), strict=True)
    prompts = {number: prompt for number, prompt in told if prompt is not None}
    # What names the group is where the prompts of two groups part; what stands before is common to all.
    n_composition = len(model.language.prompt(cell.composition, None))
    pair = (model.language.prompt(cell.composition, 1), model.language.prompt(cell.composition, 2))
    place = next(i for i, (one, other) in enumerate(zip(*pair, strict=True)) if one != other)
    (rows,) = sample.next_token_log_probs(model.network, [pair[0][:place]])
    common = sum(float(rows[i - 1, pair[0][i]]) for i in range(n_composition, place))
    log_p = np.array([float(rows[-1, prompt[place]]) for prompt in prompts.values()])
    weights = _sampled(log_p, settings)
    for (number, prompt), weight, log_group in zip(
        prompts.items(), weights.tolist(), log_p.tolist(), strict=True
    ):
        if weight >= _NEGLIGIBLE:
            yield number, tuple(prompt), weight, common + log_group


def _sampled(log_p: Any, settings: SamplingOptions) -> Any:
    """The probabilities with which `decode.sample` draws from these tokens."""
    if settings.top_k is not None and settings.top_k < len(log_p):
        log_p = np.where(log_p < np.sort(log_p)[-settings.top_k], -np.inf, log_p)
    weights = _tempered(log_p, settings.temperature)
    if settings.top_p is not None and settings.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        before = np.cumsum(weights[order]) - weights[order]
        weights[order[before >= settings.top_p]] = 0.0
        weights = weights / weights.sum()
    return weights


def _tempered(log_p: Any, temperature: float) -> Any:
    """Probabilities at a temperature; at 0 the likeliest has all."""
    if temperature == 0:
        return (np.arange(len(log_p)) == np.argmax(log_p)).astype(np.float64)
    weights = np.exp((log_p - log_p.max()) / temperature)
    return weights / weights.sum()


def _summary(
    found: Sequence[Choice], cell: Cell, group: SpaceGroup | None, *, any_z: bool, any_group: bool
) -> str:
    """What was tried, with its weights."""
    parts = [cell.note]
    if any_z:
        by_z: dict[str, float] = {}
        for choice in found:
            made = choice.cell
            by_z[str(made.z if made else "")] = choice.z_probability or 0.0
        parts = [f"{cell.reduced_formula}, Z = {_listed(by_z)}"]
    if any_group:
        by_group: dict[str, float] = {}
        for choice in found:
            symbol = _symbol(choice.space_group or 0)
            by_group[symbol] = by_group.get(symbol, 0.0) + choice.weight
        parts.append(f"space group = auto: {_listed(by_group)}")
    elif group is not None:
        parts.append(f"{group.symbol} (no. {group.number})")
    return ", ".join(parts)


@cache
def _symbol(number: int) -> str:
    return space_groups.get(number).symbol


def _listed(weights: dict[str, float]) -> str:
    """The heaviest by name, the rest by number: `4 (61 %), 2 (30 %), 7 others (9 %)`."""
    order = sorted(weights, key=lambda name: -weights[name])
    shown = _SHOWN if len(order) > _SHOWN + 1 else len(order)
    named = [f"{name} ({_percent(weights[name])})" for name in order[:shown]]
    if len(order) > shown:
        rest = sum(weights[name] for name in order[shown:])
        named.append(f"{len(order) - shown} others ({_percent(rest)})")
    return ", ".join(named)


def _percent(weight: float) -> str:
    return f"{100 * weight:.2g} %" if 0.001 <= weight < 0.1 else f"{100 * weight:.0f} %"
