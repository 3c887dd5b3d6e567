"""How plausible a network finds given crystals: log-likelihoods, whole and by part of the text.

With t_1 ... t_n the tokens of a crystal's canonical text (t_1, its beginning, is given) and p the network's
probabilities at temperature 1, without rules,

    nats = -sum_{i > 1} log p(t_i | t_1 ... t_{i-1})        perplexity = exp(nats / tokens)

and every token belongs to one part: composition, space group, orbits (which element on which position), cell,
or coordinates. What a part costs is told given all parts before it, so that `nats` without the composition is
the surprise at the crystal given its formula. Numbers of different languages, and of models with different
tables of tokens, compare by crystal only, not by token.

Knows texts and networks; refuses to know files and which crystal is the better one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError
from crystallm.language import TOKEN_ROLES
from crystallm.sampling.sample import token_losses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystallm.models.model import Model
    from crystallm.sources.entry import Entry


BATCH_TOKENS = 16_384
"""Tokens that go through the network together, padding included."""

TOGETHER = 512
"""Crystals that are sorted by length before they are put together."""

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
"""Columns of a table of scores, with their pyarrow types. What was not scored has nulls, and the reason."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a network makes of one crystal.

    Attributes:
        nats: of the whole text, natural units.
        n_tokens: that were judged.
        parts: (nats, tokens) of each part.
    """

    nats: float
    n_tokens: int
    parts: dict[str, tuple[float, int]]

    @property
    def perplexity(self) -> float:
        """Of a token of the text."""
        return math.exp(self.nats / self.n_tokens) if self.n_tokens else math.nan


def score(model: Model, texts: Sequence[Sequence[int]]) -> list[Score]:
    """Log-likelihoods of whole texts.

    Args:
        model: loaded.
        texts: tokens of each crystal, end included.

    Raises:
        InputError: a text of fewer than two tokens, or longer than the context.
    """
    context = model.config.context
    for ids in texts:
        if not 2 <= len(ids) <= context:
            raise InputError(f"a text of {len(ids)} tokens: the model {model.name!r} reads 2 to {context}")
    found: dict[int, Score] = {}
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    while order:
        longest = len(texts[order[-1]])
        batch = [order.pop() for _ in range(min(len(order), max(1, BATCH_TOKENS // longest)))]
        for i, losses in zip(batch, token_losses(model.network, [texts[i] for i in batch]), strict=True):
            named = zip(model.language.token_roles(texts[i])[1:], losses, strict=True)
            sums = dict.fromkeys(TOKEN_ROLES, (0.0, 0))
            for part, loss in named:
                nats, n = sums[part]
                sums[part] = (nats + loss, n + 1)
            found[i] = Score(math.fsum(losses), len(losses), sums)
    return [found[i] for i in range(len(texts))]


def rows(model: Model, entries: Iterable[Entry], *, symprec: float = 0.1) -> Iterator[dict[str, Any]]:
    """A row with `COLUMNS` for each crystal of a collection, in its order.

    Args:
        model: loaded.
        entries: to score.
        symprec: distance tolerance of the symmetry search, Å.
    """
    waiting: list[tuple[dict[str, Any], list[int] | None]] = []
    for entry in entries:
        waiting.append(_read(model, entry, symprec))
        if len(waiting) == TOGETHER:
            yield from _scored(model, waiting)
            waiting = []
    yield from _scored(model, waiting)


def _read(model: Model, entry: Entry, symprec: float) -> tuple[dict[str, Any], list[int] | None]:
    """A row without numbers, and the tokens of its crystal if it has a text."""
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
    row["formula"] = formula.short("".join(f"{symbol}{count}" for symbol, count in composition.items()))
    row |= {"space_group": space_groups.get(group).symbol, "n_tokens": len(ids) - 1}
    context = model.config.context
    if len(ids) > context:
        return row | {"reason": f"{len(ids)} tokens are more than the context of {context}"}, None
    return row, ids


def _scored(model: Model, read: Sequence[tuple[dict[str, Any], list[int] | None]]) -> list[dict[str, Any]]:
    scores = iter(score(model, [ids for _, ids in read if ids is not None]))
    found = []
    for row, ids in read:
        if ids is None:
            found.append(row)
            continue
        one = next(scores)
        told: dict[str, Any] = {
            "nats": one.nats,
            "nats_per_token": one.nats / one.n_tokens,
            "perplexity": one.perplexity,
        }
        for part, (nats, n) in one.parts.items():
            told |= {f"{part}_nats": nats, f"{part}_tokens": n}
            told[f"{part}_perplexity"] = math.exp(nats / n) if n else None
        found.append(row | told)
    return found
