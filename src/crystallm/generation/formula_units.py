"""Probabilities of Z: how many formula units of a compound the network expects in the cell.

For a formula unit U, the probability of Z is that the network samples the composition of Z U and ends it
there: the product of the probabilities of its tokens after the first, and of the tokens of the group if one
is requested, else of any allowed next token, all without the grammar. A Z with less than `UNLIKELY` of the
largest probability is not tried; neither, for speed, is one whose first count has less than that share of
the most likely first count. Probabilities are normalised over the Z that are tried.

Many formulas are computed together: alone, each would take as long as a crystal. Does not depend on how the
probabilities are used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.grammar import factory, text_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from crystallm.crystallography.formula import Cell
    from crystallm.models.model import Model

    CellPrompt = tuple[Cell, list[int]]

UNLIKELY = 0.01
"""Share of the largest probability below which a Z is not tried."""
_MIN_LOG_SHARE = math.log(UNLIKELY)
_BATCH = 64  # formulas that are computed together


def likely(
    model: Model, formulas: Sequence[tuple[Sequence[CellPrompt], int | None]]
) -> list[tuple[list[CellPrompt], Any]]:
    """Return the likely cells of each formula.

    Args:
        model: gives the probabilities.
        formulas: for each its candidate cells, with prompts, and the number of the requested space group.

    Returns:
        For each formula the cells that are tried, in their order, and the logarithms of their
        probabilities, (number of cells,) float64.
    """
    found: list[tuple[list[CellPrompt], Any]] = []
    for start in range(0, len(formulas), _BATCH):
        group = formulas[start : start + _BATCH]
        plausible = _plausible(model, [cells for cells, _ in group])
        log_probs = iter(
            _sequence_log_probs(
                model, [prompt for cells in plausible for _, prompt in cells if len(cells) > 1]
            )
        )
        for cells, (_, number) in zip(plausible, group, strict=True):
            if len(cells) == 1:
                found.append((cells, np.zeros(1)))
            else:
                found.append(_likely_cells(model, cells, [next(log_probs) for _ in cells], number))
    return found


def _plausible(model: Model, formulas: Sequence[Sequence[CellPrompt]]) -> list[list[CellPrompt]]:
    """Return the cells of each formula whose first count is likely enough."""
    from crystallm.sampling.sample import next_token_log_probs

    prompts = [[prompt for _, prompt in cells] for cells in formulas]
    indices = [
        next((i for i, tokens in enumerate(zip(*some, strict=False)) if len(set(tokens)) > 1), len(some[0]))
        for some in prompts
    ]
    prefixes = [some[0][:index] for some, index in zip(prompts, indices, strict=True)]
    found = []
    for cells, index, rows in zip(
        formulas, indices, next_token_log_probs(model.network, prefixes), strict=True
    ):
        if len(cells) == 1:
            found.append(list(cells))
            continue
        first = rows[-1][[prompt[index] for _, prompt in cells]]
        keep = (first >= first.max() + _MIN_LOG_SHARE).tolist()
        found.append([cell for cell, is_likely in zip(cells, keep, strict=True) if is_likely])
    return found


def _sequence_log_probs(model: Model, prompts: Sequence[list[int]]) -> list[tuple[float, Tensor]]:
    """Return the log-probability of each prompt after its first token, and of all next tokens, (V,)."""
    import torch

    from crystallm.sampling.sample import next_token_log_probs

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # little padding
    texts = [prompts[i] for i in order]
    found: dict[int, tuple[float, Tensor]] = {}
    for i, text, rows in zip(order, texts, next_token_log_probs(model.network, texts), strict=True):
        ids = torch.tensor(text[1:], dtype=torch.int64)
        found[i] = float(rows[:-1].gather(1, ids[:, None]).sum()), rows[-1].clone()
    return [found[i] for i in range(len(prompts))]


def _likely_cells(
    model: Model, cells: Sequence[CellPrompt], log_probs: Sequence[tuple[float, Tensor]], number: int | None
) -> tuple[list[CellPrompt], Any]:
    """Return the cells of one formula that are likely enough, and the logarithms of their probabilities."""
    found: dict[int, float] = {}
    best = -math.inf
    for i in sorted(range(len(cells)), key=lambda i: -log_probs[i][0]):
        log_p, after = log_probs[i]
        # An upper bound of its probability: the allowed next tokens are the slowest part.
        if log_p < best + _MIN_LOG_SHARE:
            break
        cell, prompt = cells[i]
        if not _fits_context(model, cell, number):
            continue
        found[i] = log_p + (_continuation_log_prob(model, cell, prompt, after) if number is None else 0.0)
        best = max(best, found[i])
    found = found or {0: 0.0}  # keep one: building its grammar raises the error with the reason
    tried = [i for i in sorted(found) if found[i] >= max(found.values()) + _MIN_LOG_SHARE]
    weights = np.array([found[i] for i in tried])
    return [cells[i] for i in tried], weights - np.logaddexp.reduce(weights)


def _fits_context(model: Model, cell: Cell, number: int | None) -> bool:
    """Return whether the context holds some sequence of a cell, in this space group if there is one."""
    counts, context = tuple(sorted(count for _, count in cell.composition)), model.config.context
    return model.language.slides or text_length.fits_context(counts, context, number)


def _continuation_log_prob(model: Model, cell: Cell, prompt: Sequence[int], row: Tensor) -> float:
    """Return the log-probability that an allowed token follows a composition."""
    import torch

    rules = factory.make_grammar(model.language.name, cell.composition, None, "full")
    allowed = None if rules is None else rules.start(prompt).allowed()
    return 0.0 if allowed is None else float(torch.logsumexp(row[list(allowed)], dim=0))
