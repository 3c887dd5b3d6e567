"""Tokens drawn from logits: temperature, top-k and top-p, among those that may come.

Knows numbers, not texts. Letters of shapes: N rows, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from crystallm.network.config import Ids


_BELOW_ONE = 1.0 - 2.0**-40

_KEPT = 4096  # lists of tokens whose arrays are kept


def choose(
    logits: Tensor,
    uniforms: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None,
    top_p: float | None = None,
) -> Tensor:
    """Draw one token a row, by inversion of the cumulative distribution in the order of the tokens.

    Args:
        logits: (N, V); -inf where a token is not allowed. Each row needs a finite one.
        uniforms: (N,) float64 in [0, 1).
        temperature: as for `sample`, as are the next two; applied in the order k, temperature, p.
        top_k: tokens that tie with the k-th stay.
        top_p: of the probabilities at this temperature.

    Returns:
        (N,) int64 tokens.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        kth = torch.topk(logits, top_k, dim=-1).values[:, -1:]  # (N, 1)
        logits = logits.masked_fill(logits < kth, -math.inf)
    # The maximum first, so that a tiny temperature cannot overflow.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    probabilities = torch.softmax(logits, dim=-1, dtype=torch.float64)  # (N, V)
    if top_p is not None and top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(dim=-1) - ranked >= top_p  # the likeliest stays: nothing is before it
        probabilities = probabilities.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    thresholds = uniforms.clamp(max=_BELOW_ONE)[:, None] * cumulative[:, -1:]
    return (cumulative <= thresholds).sum(dim=-1)


def mask_logits(logits: Tensor, allowed: Sequence[Sequence[int] | None]) -> Tensor:
    """Set to -inf what is not allowed; (N, V) logits and for each row its allowed tokens, None for all."""
    n_rows, n_tokens = logits.shape
    bound = [row for row, tokens in enumerate(allowed) if tokens is not None]
    if not bound:
        return logits
    flat = np.concatenate([np.asarray(allowed[row], dtype=np.int64) + row * n_tokens for row in bound])
    keep = torch.ones((n_rows, n_tokens), dtype=torch.bool)
    keep[bound] = False
    keep.view(-1).index_fill_(0, torch.from_numpy(flat), value=True)
    return logits.masked_fill(~keep.to(logits.device), -math.inf)


class Chooser:
    """Draws a token for each row among those that may come there.

    Rules give the same few lists of tokens again and again; each is made an array once.

    Args:
        n_vocabulary: V.
    """

    def __init__(self, n_vocabulary: int) -> None:
        self._n_vocabulary = n_vocabulary
        self._known: dict[int, tuple[Sequence[int], Ids]] = {}

    def choose(
        self,
        logits: Tensor,
        allowed: Sequence[Sequence[int] | None],
        uniforms: Sequence[float],
        *,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> list[int]:
        """A token for each row.

        Args:
            logits: (N, V).
            allowed: tokens that may come in each row, None for all.
            uniforms: a random number for each row.
            temperature: as for the function `choose`, as are the next two.
            top_k: likewise.
            top_p: likewise.
        """
        how: Any = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        drawn = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)
        few = [self._array(tokens) for tokens in allowed if tokens is not None]
        longest = max(map(len, few), default=0)
        if len(few) < len(allowed) or 4 * longest > self._n_vocabulary:
            wide: list[int] = choose(mask_logits(logits, allowed), drawn, **how).tolist()
            return wide
        # Far fewer may come than there are: the others are left out, and the choice is the same.
        table = np.zeros((len(few), longest), dtype=np.int64)
        for line, array in zip(table, few, strict=True):
            line[: len(array)] = array
        there = np.arange(longest) < np.array([len(tokens) for tokens in few])[:, None]
        index = torch.from_numpy(table).to(logits.device)
        narrow = logits.gather(1, index).masked_fill(~torch.from_numpy(there).to(logits.device), -math.inf)
        taken = choose(narrow, drawn, **how)
        found: list[int] = index.gather(1, taken[:, None])[:, 0].tolist()
        return found

    def _array(self, tokens: Sequence[int]) -> Ids:
        """Tokens in ascending order, so that a number between 0 and 1 means the same token in any table."""
        known = self._known.get(id(tokens))
        if known is not None and known[0] is tokens:
            return known[1]
        found = np.sort(np.asarray(tokens, dtype=np.int64))
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[id(tokens)] = tokens, found
        return found


def log_probs(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probability of a token in each row of logits (N, V)."""
    index = torch.tensor(tokens, device=logits.device)[:, None]
    found: list[float] = (logits.gather(1, index)[:, 0] - logits.logsumexp(dim=1)).tolist()
    return found
