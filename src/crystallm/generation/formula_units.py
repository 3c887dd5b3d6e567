"""Which cells of a formula the network finds likely.

For a formula unit U, the weight of Z is the probability that the network writes the composition of Z U and
stops there: the product of the probabilities of its tokens behind the first, of the group's tokens if a group
was asked for, else times that of any token that may follow, all without rules. A Z with less than `UNLIKELY`
of the weight of the likeliest is not tried, and neither, for the sake of speed, is one whose first count has
so little of the probability that the likeliest first count has. Weights are normalised over the Z that are
tried.

Many formulas are weighed together: alone, each would take as long as a crystal. Refuses to know what becomes
of the weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.grammar import factory, text_length
from crystallm.sampling.sample import next_token_log_probs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from crystallm.crystallography.formula import Cell
    from crystallm.models.model import Model

    Told = tuple[Cell, list[int]]

UNLIKELY = 0.01
"""Part of the likeliest Z's weight below which a Z is not tried."""
_LEAST = math.log(UNLIKELY)
_TOGETHER = 64  # formulas that are weighed together


def likely(model: Model, asked: Sequence[tuple[Sequence[Told], int | None]]) -> list[tuple[list[Told], Any]]:
    """The cells that are tried.

    Args:
        asked: for each formula its cells, with prompts, and the number of the space group that was asked for.

    Returns:
        For each formula those of its cells that are tried, in their order, and the logarithms of their
        weights, (number of cells,) float64.
    """
    found: list[tuple[list[Told], Any]] = []
    for start in range(0, len(asked), _TOGETHER):
        group = asked[start : start + _TOGETHER]
        hopeful = _hopeful(model, [cells for cells, _ in group])
        told = iter(_told(model, [prompt for cells in hopeful for _, prompt in cells if len(cells) > 1]))
        for cells, (_, number) in zip(hopeful, group, strict=True):
            if len(cells) == 1:
                found.append((cells, np.zeros(1)))
            else:
                found.append(_tried(model, cells, [next(told) for _ in cells], number))
    return found


def _hopeful(model: Model, asked: Sequence[Sequence[Told]]) -> list[list[Told]]:
    """The cells of each formula whose first count is likely enough."""
    prompts = [[prompt for _, prompt in cells] for cells in asked]
    places = [
        next((i for i, tokens in enumerate(zip(*some, strict=False)) if len(set(tokens)) > 1), len(some[0]))
        for some in prompts
    ]
    beginnings = [some[0][:place] for some, place in zip(prompts, places, strict=True)]
    found = []
    for cells, place, rows in zip(
        asked, places, next_token_log_probs(model.network, beginnings), strict=True
    ):
        if len(cells) == 1:
            found.append(list(cells))
            continue
        first = rows[-1][[prompt[place] for _, prompt in cells]]
        hopes = (first >= first.max() + _LEAST).tolist()
        found.append([one for one, hope in zip(cells, hopes, strict=True) if hope])
    return found


def _told(model: Model, prompts: Sequence[list[int]]) -> list[tuple[float, Tensor]]:
    """Log-probability of each prompt behind its first token, and of each token that comes next, (V)."""
    import torch

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # little padding
    texts = [prompts[i] for i in order]
    found: dict[int, tuple[float, Tensor]] = {}
    for i, text, rows in zip(order, texts, next_token_log_probs(model.network, texts), strict=True):
        ids = torch.tensor(text[1:], dtype=torch.int64)
        found[i] = float(rows[:-1].gather(1, ids[:, None]).sum()), rows[-1].clone()
    return [found[i] for i in range(len(prompts))]


def _tried(
    model: Model, cells: Sequence[Told], told: Sequence[tuple[float, Tensor]], number: int | None
) -> tuple[list[Told], Any]:
    """The cells of one formula that are likely enough, and the logarithms of their weights."""
    found: dict[int, float] = {}
    best = -math.inf
    for i in sorted(range(len(cells)), key=lambda i: -told[i][0]):
        log_p, after = told[i]
        # No weight is more than this, and which tokens may follow takes longer to find than all else.
        if log_p < best + _LEAST:
            break
        cell, prompt = cells[i]
        if not _fits(model, cell, number):
            continue
        found[i] = log_p + (_going_on(model, cell, prompt, after) if number is None else 0.0)
        best = max(best, found[i])
    found = found or {0: 0.0}  # whoever makes its rules says why it cannot be written
    tried = [i for i in sorted(found) if found[i] >= max(found.values()) + _LEAST]
    weights = np.array([found[i] for i in tried])
    return [cells[i] for i in tried], weights - np.logaddexp.reduce(weights)


def _fits(model: Model, cell: Cell, number: int | None) -> bool:
    """Whether the context holds some text of a cell, in this space group if there is one."""
    counts, context = tuple(sorted(count for _, count in cell.composition)), model.config.context
    return model.language.slides or text_length.fits_context(counts, context, number)


def _going_on(model: Model, cell: Cell, prompt: Sequence[int], row: Tensor) -> float:
    """Log-probability that what comes behind a composition is what may."""
    import torch

    rules = factory.make_grammar(model.language.name, cell.composition, None, "full")
    allowed = None if rules is None else rules.start(prompt).allowed()
    return 0.0 if allowed is None else float(torch.logsumexp(row[list(allowed)], dim=0))
