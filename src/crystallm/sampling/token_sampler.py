"""Draw tokens from logits: temperature, top-k and top-p, among the allowed tokens.

Letters of shapes: N rows, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from crystallm.sampling.sequence import BELOW_ONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from crystallm.network.config import Ids

_MAX_CACHED = 4096  # token lists whose arrays are cached


class Drawn(NamedTuple):
    """Tokens drawn for N rows.

    Attributes:
        tokens: (N,).
        intervals: (N, 2): where the random numbers begin that draw the token, and how long their interval is,
            which is its probability. (0, 1) at temperature 0.
    """

    tokens: list[int]
    intervals: list[list[float]]


def draw_tokens(
    logits: Tensor,
    uniforms: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None,
    top_p: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution in token order.

    Args:
        logits: (N, V); -inf where a token is not allowed. Each row needs at least one finite logit.
        uniforms: (N,) float64 in [0, 1).
        temperature: divides the logits; 0 takes the most likely token. Applied after top-k, before top-p.
        top_k: sample from the k most likely tokens, including ties with the k-th; None for all.
        top_p: sample from the smallest set of most likely tokens that holds this probability; None for all.

    Returns:
        (N,) int64 tokens, and their intervals (N, 2), see `Drawn`.
    """
    if temperature == 0:
        everything = torch.tensor([0.0, 1.0], dtype=torch.float64, device=logits.device)
        return logits.argmax(dim=-1), everything.expand(len(logits), 2)
    if top_k is not None and top_k < logits.shape[-1]:
        kth = torch.topk(logits, top_k, dim=-1).values[:, -1:]  # (N, 1)
        logits = logits.masked_fill(logits < kth, -math.inf)
    # Subtract the maximum first, so that a tiny temperature cannot overflow.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    probabilities = torch.softmax(logits, dim=-1, dtype=torch.float64)  # (N, V)
    if top_p is not None and top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(dim=-1) - ranked >= top_p  # never the most likely token
        probabilities = probabilities.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    cumulative = cumulative / cumulative[:, -1:]
    tokens = (cumulative <= uniforms.clamp(max=BELOW_ONE)[:, None]).sum(dim=-1)
    ends = cumulative.gather(1, tokens[:, None])
    starts = functional.pad(cumulative, (1, 0)).gather(1, tokens[:, None])
    return tokens, torch.cat([starts, ends - starts], dim=1)


def mask_logits(logits: Tensor, allowed: Sequence[Sequence[int] | None]) -> Tensor:
    """Set the logits (N, V) of tokens that are not allowed to -inf; None allows all tokens of a row."""
    n_rows, n_tokens = logits.shape
    restricted = [row for row, tokens in enumerate(allowed) if tokens is not None]
    if not restricted:
        return logits
    flat = np.concatenate([np.asarray(allowed[row], dtype=np.int64) + row * n_tokens for row in restricted])
    keep = torch.ones((n_rows, n_tokens), dtype=torch.bool)
    keep[restricted] = False
    keep.view(-1).index_fill_(0, torch.from_numpy(flat), value=True)
    return logits.masked_fill(~keep.to(logits.device), -math.inf)


class TokenSampler:
    """Draw a token for each row among its allowed tokens.

    Grammars return the same few lists of tokens again and again; the array of each is cached.

    Args:
        compiled: use compiled code, which needs numba and logits on the CPU; the drawn tokens are the same.
    """

    def __init__(self, n_vocabulary: int, *, compiled: bool = False) -> None:
        self._n_vocabulary = n_vocabulary
        self._compiled = compiled
        self._all_tokens = np.arange(n_vocabulary)
        self._arrays: dict[int, tuple[Sequence[int], Ids]] = {}

    def draw(
        self,
        logits: Tensor,
        allowed: Sequence[Sequence[int] | None],
        uniforms: Sequence[float],
        *,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> Drawn:
        """Draw a token for each row.

        Args:
            logits: (N, V).
            allowed: allowed tokens of each row, None for all.
            uniforms: a random number in [0, 1) for each row.
        """
        if self._compiled and (top_p is None or top_p == 1):
            return self._draw_compiled(logits, allowed, uniforms, temperature, top_k)
        options: Any = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        random = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)
        arrays = [self._array(tokens) for tokens in allowed if tokens is not None]
        longest = max(map(len, arrays), default=0)
        if len(arrays) < len(allowed) or 4 * longest > self._n_vocabulary:
            tokens, intervals = draw_tokens(mask_logits(logits, allowed), random, **options)
            return Drawn(tokens.tolist(), intervals.tolist())
        # Few tokens are allowed: gather their logits. The drawn tokens are the same.
        table = np.zeros((len(arrays), longest), dtype=np.int64)
        for line, array in zip(table, arrays, strict=True):
            line[: len(array)] = array
        is_token = np.arange(longest) < np.array([len(tokens) for tokens in arrays])[:, None]
        index = torch.from_numpy(table).to(logits.device)  # (N, longest)
        narrow = logits.gather(1, index).masked_fill(~torch.from_numpy(is_token).to(logits.device), -math.inf)
        columns, intervals = draw_tokens(narrow, random, **options)
        return Drawn(index.gather(1, columns[:, None])[:, 0].tolist(), intervals.tolist())

    def _draw_compiled(
        self,
        logits: Tensor,
        allowed: Sequence[Sequence[int] | None],
        uniforms: Sequence[float],
        temperature: float,
        top_k: int | None,
    ) -> Drawn:
        """As `draw`, without top-p."""
        from crystallm.sampling.numba_sampler import draw_rows

        arrays = [self._all_tokens if tokens is None else self._array(tokens) for tokens in allowed]
        drawn, intervals = np.empty(len(arrays), dtype=np.int64), np.empty((len(arrays), 2))
        draw_rows(
            logits.numpy(),
            np.concatenate(arrays),
            np.cumsum([len(array) for array in arrays]),
            np.minimum(uniforms, BELOW_ONE),
            float(temperature),
            top_k or self._n_vocabulary,
            drawn,
            intervals,
        )
        return Drawn(drawn.tolist(), intervals.tolist())

    def _array(self, tokens: Sequence[int]) -> Ids:
        """Return tokens in ascending order, so that a uniform number selects the same token in any table."""
        cached = self._arrays.get(id(tokens))
        if cached is not None and cached[0] is tokens:
            return cached[1]
        array = np.sort(np.asarray(tokens, dtype=np.int64))
        if len(self._arrays) >= _MAX_CACHED:
            self._arrays.clear()
        self._arrays[id(tokens)] = tokens, array
        return array


def token_log_probs(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Return the log-probability of one token per row of logits (N, V)."""
    index = torch.tensor(tokens, device=logits.device)[:, None]
    values: list[float] = (logits.gather(1, index)[:, 0] - logits.logsumexp(dim=1)).tolist()
    return values
