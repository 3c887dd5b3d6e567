"""Log-likelihoods of given crystals under a model, in total and by part.

With t_1 ... t_n the tokens of a crystal's canonical sequence (t_1, its start, is given) and p the network's
probabilities at temperature 1, without grammar,

    nats = -sum_{i > 1} log p(t_i | t_1 ... t_{i-1})        perplexity = exp(nats / tokens)

Every token belongs to one part: composition, space group, orbits (which element on which position), cell, or
coordinates. The nats of a part are conditional on all earlier parts, so that `nats` without the composition
is -log p(crystal | formula). Compare different languages or vocabularies per crystal, not per token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from crystallm.errors import CrystallmError, InputError
from crystallm.language import TOKEN_ROLES
from crystallm.models.model import Model
from crystallm.sampling.sample import log_probs
from crystallm.sources.entry import Entry

BATCH_TOKENS = 16_384
"""Maximum number of tokens of a batch, padding included."""

SORTED = 512
"""Number of crystals that are sorted by length before they are batched."""
COLUMNS = {
    "id": "string",
    "formula": "string",
    "space_group": "string",
    "n_tokens": "int32",
    "nats": "float64",
    "nats_per_token": "float64",
    "perplexity": "float64",
    **{
        f"{part}_{what}": kind
        for part in TOKEN_ROLES
        for what, kind in (("nats", "float64"), ("tokens", "int32"), ("perplexity", "float64"))
    },
    "reason": "string",
}
"""Columns of a table of scores, with pyarrow types. Crystals without a score have nulls and a reason."""


@dataclass(frozen=True, slots=True)
class LikelihoodScore:
    """Negative log-likelihood of one crystal.

    Attributes:
        nats: of the whole sequence, natural units.
        parts: (nats, tokens) of each part.
    """

    nats: float
    n_tokens: int
    parts: dict[str, tuple[float, int]]

    @property
    def perplexity(self) -> float:
        """Perplexity per token; NaN without tokens."""
        return math.exp(self.nats / self.n_tokens) if self.n_tokens else math.nan


def score(model: Model, sequences: Sequence[Sequence[int]]) -> list[LikelihoodScore]:
    """Score complete token sequences.

    Args:
        model: loaded.
        sequences: tokens of each crystal, end included.

    Raises:
        InputError: a sequence has fewer than two tokens, or more than the context.
    """
    context = model.config.context
    for ids in sequences:
        if not 2 <= len(ids) <= context:
            raise InputError(f"a text of {len(ids)} tokens: the model {model.name!r} reads 2 to {context}")
    scores: dict[int, LikelihoodScore] = {}
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    while order:
        longest = len(sequences[order[-1]])
        batch = [order.pop() for _ in range(min(len(order), max(1, BATCH_TOKENS // longest)))]
        values = log_probs(model.network, [sequences[i] for i in batch])
        for i, own in zip(batch, values, strict=True):
            sums = dict.fromkeys(TOKEN_ROLES, (0.0, 0))
            for part, log_prob in zip(model.language.token_roles(sequences[i])[1:], own, strict=True):
                nats, n = sums[part]
                sums[part] = (nats - log_prob, n + 1)
            scores[i] = LikelihoodScore(math.fsum(-log_prob for log_prob in own), len(own), sums)
    return [scores[i] for i in range(len(sequences))]


def rows(model: Model, entries: Iterable[Entry], *, symprec: float = 0.1) -> Iterator[dict[str, Any]]:
    """Yield a row with `COLUMNS` for each crystal of a collection, in order.

    Args:
        symprec: distance tolerance of the symmetry search, Å.
    """
    waiting: list[tuple[dict[str, Any], list[int] | None]] = []
    for entry in entries:
        waiting.append(_read(model, entry, symprec))
        if len(waiting) == SORTED:
            yield from _scored(model, waiting)
            waiting = []
    yield from _scored(model, waiting)


def _read(model: Model, entry: Entry, symprec: float) -> tuple[dict[str, Any], list[int] | None]:
    """Return a row without scores, and the tokens of its crystal if it can be encoded."""
    from crystallm.crystallography import formula, space_groups
    from crystallm.sources import parsing

    row = dict.fromkeys(COLUMNS) | {"id": entry.id}
    if entry.text is None:
        return row | {"reason": f"not read: {entry.problem}"}, None
    try:
        ids = model.language.encode(parsing.structure(entry.text, entry.format), symprec)
        composition, group = model.language.read_prompt(ids)
    except CrystallmError as error:
        return row | {"reason": str(error)}, None
    row["formula"] = formula.short(composition)
    row |= {"space_group": space_groups.get(group).symbol, "n_tokens": len(ids) - 1}
    context = model.config.context
    if len(ids) > context:
        return row | {"reason": f"{len(ids)} tokens are more than the context of {context}"}, None
    return row, ids


def _scored(model: Model, read: Sequence[tuple[dict[str, Any], list[int] | None]]) -> list[dict[str, Any]]:
    scores = iter(score(model, [ids for _, ids in read if ids is not None]))
    scored = []
    for row, ids in read:
        if ids is None:
            scored.append(row)
            continue
        result = next(scores)
        columns: dict[str, Any] = {
            "nats": result.nats,
            "nats_per_token": result.nats / result.n_tokens,
            "perplexity": result.perplexity,
        }
        for part, (nats, n) in result.parts.items():
            columns |= {f"{part}_nats": nats, f"{part}_tokens": n}
            columns[f"{part}_perplexity"] = math.exp(nats / n) if n else None
        scored.append(row | columns)
    return scored
