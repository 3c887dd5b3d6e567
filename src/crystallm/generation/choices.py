"""Values of Z and space groups for requests that leave them open, by the probabilities of the network.

The probability of Z is that of `formula_units`; at a temperature T it is raised to the power of 1/T.

The probability of a space group is that of plain sampling after the composition: among the groups that can
hold the composition, with temperature, top_k and top_p.

Sample j of a request takes the choice at u_j = (u_0 + j phi) mod 1 of the cumulative weights, with phi the
golden ratio and u_0 drawn from the seed: each sample is a fair draw, any consecutive samples cover the
choices nearly in proportion, and a sample does not depend on their number. Where u_j lies in the interval of
its choice, from 0 to 1, is the point that draws the first tokens (see `sampling.sequence.RandomNumbers`).

Does not depend on how the sequence continues after the prompt.
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.crystallography.formula import Cell
    from crystallm.crystallography.space_groups import SpaceGroup
    from crystallm.generation.formula_units import CellPrompt
    from crystallm.generation.request import SamplingOptions
    from crystallm.models.model import Model
    from crystallm.sampling.sequence import Conditions

GOLDEN = (math.sqrt(5) - 1) / 2
_NEGLIGIBLE = 1e-6  # a choice with less weight is not tried
_SHOWN = 5  # choices that a note names
_LIKELY = 0.02  # least probability of a likely value of Z
FEW = 4
"""Samples of a likely value of Z; with fewer for half of these values, `spread` says so."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of everything that a request leaves open.

    Attributes:
        prompt: tokens.
        n_requested: the first tokens of the prompt that encode the request; the others were chosen.
        cell: its composition; None if the network decides it.
        space_group: number; None if the network decides it.
        note: one line for the user.
        weight: share of the samples.
        z_probability: of its Z among the values tried; None where Z was not open.
        space_group_probability: of its group among those of its Z; None where the group was not open.
        log_likelihood: of the choice, given the request, for the network at temperature 1, nats.
        conditions: values of the network's properties; empty: all are unknown.
    """

    prompt: tuple[int, ...]
    n_requested: int
    cell: Cell | None
    space_group: int | None
    note: str
    weight: float = 1.0
    z_probability: float | None = None
    space_group_probability: float | None = None
    log_likelihood: float = 0.0
    conditions: Conditions = ()


@dataclass(frozen=True, slots=True)
class OpenChoices:
    """What a request leaves open.

    Attributes:
        cells: candidates.
        group: requested, or None.
        any_z: whether Z is open; if not, there is one cell.
        any_group: whether the space group is open.
    """

    cells: tuple[Cell, ...]
    group: SpaceGroup | None
    any_z: bool
    any_group: bool


def choices_of_many(
    model: Model, requests: Sequence[OpenChoices], settings: SamplingOptions
) -> list[tuple[list[Choice], str]]:
    """Return `choices` of many requests; probabilities of their Z are computed together."""
    expressible = [_expressible(model, request) for request in requests]
    open_z = [index for index, request in enumerate(requests) if request.any_z]
    open_requests = [(expressible[index], _group_number(requests[index])) for index in open_z]
    likely_cells = dict(zip(open_z, formula_units.likely(model, open_requests), strict=True))
    one = np.zeros(1)
    return [
        _choices(model, request, settings, *likely_cells.get(index, (expressible[index], one)))
        for index, request in enumerate(requests)
    ]


def _expressible(model: Model, request: OpenChoices) -> list[CellPrompt]:
    """Return the cells that the language can express within the context, with their prompts.

    Raises:
        InputError: there are none.
    """
    number = _group_number(request)
    prompts = _prompts(model, [(cell, number) for cell in request.cells])
    kept = [(cell, prompt) for cell, prompt in zip(request.cells, prompts, strict=True) if prompt is not None]
    if not kept:
        cell = request.cells[0]
        model.language.prompt(cell.composition, number)  # raises an error with the reason, if there is one
        raise InputError(
            f"a cell of {cell.formula} fills the context of the model {model.name!r}: request fewer atoms"
        )
    return kept


def _group_number(request: OpenChoices) -> int | None:
    return None if request.group is None else request.group.number


def _choices(
    model: Model, request: OpenChoices, settings: SamplingOptions, kept: Sequence[CellPrompt], log_p: Any
) -> tuple[list[Choice], str]:
    """Return the choices of a request from its likely cells and the logarithms of their probabilities."""
    number, group, any_z, any_group = _group_number(request), request.group, request.any_z, request.any_group
    z_probabilities = _tempered(log_p, settings.temperature) if any_z else np.ones(1)
    found: list[Choice] = []
    for (cell, prompt), log_z, z_probability in zip(
        kept, log_p.tolist(), z_probabilities.tolist(), strict=True
    ):
        if z_probability < _NEGLIGIBLE:
            continue
        z_note = f"; {_percent(z_probability)} of z = auto" if any_z else ""
        if not any_group:
            where = "" if group is None else f", {group.symbol} (no. {group.number})"
            found.append(
                Choice(
                    prompt=tuple(prompt),
                    n_requested=len(prompt),
                    cell=cell,
                    space_group=number,
                    note=f"{cell.note}{where}{z_note}",
                    weight=z_probability,
                    z_probability=z_probability if any_z else None,
                    log_likelihood=log_z,
                )
            )
            continue
        for chosen, group_prompt, weight, log_group in _groups(model, cell, settings):
            symbol = space_groups.get(chosen).symbol
            group_note = f"; {_percent(weight)} of space group = auto"
            found.append(
                Choice(
                    prompt=group_prompt,
                    n_requested=len(prompt),
                    cell=cell,
                    space_group=chosen,
                    note=f"{cell.note}, {symbol} (no. {chosen}){z_note}{group_note}",
                    weight=z_probability * weight,
                    z_probability=z_probability if any_z else None,
                    space_group_probability=weight,
                    log_likelihood=log_z + log_group,
                )
            )
    return found, _summary(found, request.cells[0], group, any_z=any_z, any_group=any_group)


def assign_by_weight(
    weights: Sequence[float], seed: int, index: int, samples: Sequence[int]
) -> list[tuple[int, float]]:
    """Return the index of the choice of each sample, and its point within the choice; see the module.

    Args:
        index: of the request's first sample in the run.
    """
    # The random stream of sample `index` itself starts at counter 0, and never comes this far.
    stream = np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=np.array([0, 0, 0, 1]))
    first = float(np.random.Generator(stream).random())
    ends = np.cumsum(weights)
    points = (first + GOLDEN * np.asarray(samples, dtype=np.float64)) % 1.0 * ends[-1]
    taken = np.minimum(np.searchsorted(ends, points, side="right"), len(ends) - 1)
    within = (points - ends[taken]) / np.asarray(weights)[taken] + 1
    return list(zip(taken.tolist(), np.clip(within, 0.0, 1.0).tolist(), strict=True))


def _prompts(model: Model, cells: Sequence[tuple[Cell, int | None]]) -> list[list[int] | None]:
    """Return the prompt of each cell and group; None if the language or the context excludes it."""
    prompts: list[list[int] | None] = []
    for cell, number in cells:
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
    """Yield space groups of a cell: number, prompt, weight, log-likelihood after the composition."""
    from crystallm.sampling.sample import next_token_log_probs

    counts = tuple(sorted(count for _, count in cell.composition))
    context = None if model.language.slides else model.config.context
    full = settings.constraints == "full"
    numbers = text_length.groups_within(counts, context) if full else range(1, 231)
    expressible = zip(numbers, _prompts(model, [(cell, number) for number in numbers]), strict=True)
    prompts = {number: prompt for number, prompt in expressible if prompt is not None}
    # The token of the group is where the prompts of two groups differ first.
    n_composition = len(model.language.prompt(cell.composition, None))
    pair = (model.language.prompt(cell.composition, 1), model.language.prompt(cell.composition, 2))
    index = next(i for i, (one, other) in enumerate(zip(*pair, strict=True)) if one != other)
    (rows,) = next_token_log_probs(model.network, [pair[0][:index]])
    common = sum(float(rows[i - 1, pair[0][i]]) for i in range(n_composition, index))
    log_p = np.array([float(rows[-1, prompt[index]]) for prompt in prompts.values()])
    weights = _sampled(log_p, settings)
    for (number, prompt), weight, log_group in zip(
        prompts.items(), weights.tolist(), log_p.tolist(), strict=True
    ):
        if weight >= _NEGLIGIBLE:
            yield number, tuple(prompt), weight, common + log_group


def _sampled(log_p: Any, settings: SamplingOptions) -> Any:
    """Return the probabilities with which `sampling.sample` draws these tokens."""
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
    """Return probabilities at a temperature; at 0 the most likely token has 1."""
    if temperature == 0:
        return (np.arange(len(log_p)) == np.argmax(log_p)).astype(np.float64)
    weights = np.exp((log_p - log_p.max()) / temperature)
    return weights / weights.sum()


def _summary(
    found: Sequence[Choice], cell: Cell, group: SpaceGroup | None, *, any_z: bool, any_group: bool
) -> str:
    """Describe the choices with their weights."""
    parts = [cell.note]
    if any_z:
        by_z: dict[str, float] = {}
        for choice in found:
            by_z[str(choice.cell.z if choice.cell else "")] = choice.z_probability or 0.0
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


def spread(choices: Sequence[Choice], n: int) -> str:
    """Describe that n samples are few for the likely values of Z; "" where they are not."""
    by_z = {choice.cell.z: choice.z_probability or 0.0 for choice in choices if choice.cell}
    likely = sorted(probability for probability in by_z.values() if probability >= _LIKELY)
    if len(likely) < 2 or n * likely[len(likely) // 2] >= FEW:
        return ""
    samples = "sample is" if n == 1 else "samples are"
    return f"{n} {samples} few for {len(likely)} likely values of Z: give one of them, or more samples"


@cache
def _symbol(number: int) -> str:
    return space_groups.get(number).symbol


def _listed(weights: dict[str, float]) -> str:
    """List the largest weights by name, the rest by number: `4 (61 %), 2 (30 %), 7 others (9 %)`."""
    order = sorted(weights, key=lambda name: -weights[name])
    shown = _SHOWN if len(order) > _SHOWN + 1 else len(order)
    named = [f"{name} ({_percent(weights[name])})" for name in order[:shown]]
    if len(order) > shown:
        rest = sum(weights[name] for name in order[shown:])
        named.append(f"{len(order) - shown} others ({_percent(rest)})")
    return ", ".join(named)


def _percent(weight: float) -> str:
    return f"{100 * weight:.2g} %" if 0.001 <= weight < 0.1 else f"{100 * weight:.0f} %"
