"""Rows that go on by different numbers of tokens, through the network in one pass.

All new tokens stand one behind the other, (N, C) in place of (B, T, C), so that products with weights waste
nothing on padding. Attention alone is padded: rows with short runs together, those with long ones apart.

Knows tensors and a `KVCache`, not how the next token is chosen. Letters of shapes: N new tokens of all rows,
B rows of a group, T tokens of its longest run, W cached tokens of its longest row with the new ones, C width,
H heads, D = C / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from crystallm.model import turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from crystallm.dataset import Ids
    from crystallm.model import GPT, KVCache

# What attention of a row costs on a CPU, microseconds (widths of 256 and 512, one thread, torch 2.13):
_CALL = 35.0  # a call of its own
_TOKEN = 2.0  # a token
_SEEN = 0.035  # and each column that it sees


@dataclass(frozen=True)
class Group:
    """Rows whose attention is computed together.

    Attributes:
        rows: their numbers in the cache, or the slice of it that they are, which copies nothing.
        tokens: (B, T) their new tokens among the N; padding points to any.
        width: W.
        mask: (B, 1, T, W) bool, True where attended.
        taken: (n) which of the B T are tokens of the group; None for all.
        places: (n) where these stand among the N; None where the group holds all N in order.
    """

    rows: Tensor | slice
    tokens: Tensor
    width: int
    mask: Tensor
    taken: Tensor | None
    places: Tensor | None


@dataclass(frozen=True)
class Runs:
    """New tokens of all rows in use.

    Attributes:
        ids: (N) tokens, row by row.
        rows: (N) the row of each.
        positions: (N) its place in the row.
        groups: the rows, parted.
        lengths: tokens of each row, cached and new.
        starts: of each row's run among the N.
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    lengths: tuple[int, ...]
    starts: tuple[int, ...]


def runs_of(tokens: Sequence[Sequence[int]], before: Sequence[int], device: torch.device) -> Runs:
    """What a pass needs to know of its tokens.

    Args:
        tokens: new ones of each row, one at least.
        before: tokens that each row has in the cache.
        device: of the network.
    """
    lengths: Ids = np.array([len(run) for run in tokens])
    starts: Ids = np.cumsum(lengths) - lengths  # of each row's run among the N
    rows = np.repeat(np.arange(len(lengths)), lengths)
    cached: Ids = np.array(before)
    positions = np.arange(int(lengths.sum())) - starts[rows] + cached[rows]
    parts = (lengths, starts, cached)
    groups = [_group(members, n, parts, device) for members, n in _parted(lengths, cached, device)]
    return Runs(
        torch.tensor(list(chain.from_iterable(tokens)), device=device),
        torch.from_numpy(rows).to(device),
        torch.from_numpy(positions).to(device),
        tuple(groups),
        tuple((cached + lengths).tolist()),
        tuple(starts.tolist()),
    )


def _parted(lengths: Ids, cached: Ids, device: torch.device) -> list[tuple[slice | Ids, int]]:
    """Rows of each group and how many tokens of their runs it computes.

    All rows are in the first, which reads the cache where it stands, with the first tokens of their runs.
    Those with longer runs are computed again: on a CPU each alone, where it stands; on a GPU, where a call
    costs more than a copy, together.
    """
    everyone = slice(0, len(lengths))
    longest = int(lengths.max())
    if device.type != "cpu":
        usual = int(np.sort(lengths)[3 * (len(lengths) - 1) // 4])
        if longest <= 2 * usual:
            return [(everyone, longest)]
        return [(everyone, usual), (np.flatnonzero(lengths > usual), longest)]
    own = _CALL + lengths * (_TOKEN + _SEEN * (cached + lengths))  # of each row alone

    def cost(n: int) -> float:
        width = int((cached + np.minimum(lengths, n)).max())
        return float(len(lengths) * n * (_TOKEN + _SEEN * width) + own[lengths > n].sum())

    best = min(np.unique(lengths).tolist(), key=cost)
    alone = np.flatnonzero(lengths > best).tolist()
    return [(everyone, best), *((slice(row, row + 1), int(lengths[row])) for row in alone)]


def _group(rows: slice | Ids, n_tokens: int, runs: tuple[Ids, Ids, Ids], device: torch.device) -> Group:
    """Some rows with the first tokens of each run (length, start, tokens before it)."""
    n_own, first, known = (part[rows] for part in runs)
    steps = np.arange(n_tokens)
    there = steps < n_own[:, None]  # (B, T)
    tokens = np.where(there, first[:, None] + steps, 0)
    reach = known[:, None] + np.where(there, steps, 0)  # (B, T) the last column that a token sees
    width = int((known + np.minimum(n_own, n_tokens)).max())
    mask = np.arange(width) <= reach[:, :, None]  # (B, T, W)
    whole = len(n_own) == len(runs[0]) and bool((n_own == n_tokens).all())
    return Group(
        rows if isinstance(rows, slice) else torch.from_numpy(rows).to(device),
        torch.from_numpy(tokens).to(device),
        width,
        torch.from_numpy(mask).to(device)[:, None],
        None if whole else torch.from_numpy(np.flatnonzero(there.ravel())).to(device),
        None if whole else torch.from_numpy(tokens[there]).to(device),
    )


def features(network: GPT, runs: Runs, cache: KVCache) -> Tensor:
    """The normalised stream (N, C) at new tokens, which are appended to the cache.

    Args:
        network: in evaluation mode.
        runs: one for each row of the cache in use, within its capacity and the context.
        cache: of this network.
    """
    trunk = network.transformer
    x: Tensor = trunk.wte(runs.ids)  # (N, C)
    turn = None
    if trunk.wpe is None:
        turn = turn_of(runs.positions, network.config.head_dim)
    else:
        x = x + trunk.wpe(runs.positions)
    n_head, head_dim = network.config.n_head, network.config.head_dim
    block: Any
    for layer, block in enumerate(trunk.h):
        qkv = block.attn.c_attn(block.ln_1(x)).view(-1, 3, n_head, head_dim)
        queries, keys, values = qkv.unbind(1)  # (N, H, D) each, views
        if turn is not None:
            queries, keys = _turned(qkv[:, :2], turn).unbind(1)
        cache.put(layer, runs.rows, runs.positions, keys, values)
        x = x + block.attn.c_proj(_attention(queries, runs.groups, cache, layer).flatten(1))
        x = x + block.mlp(block.ln_2(x))
    cache.set_lengths(runs.lengths)
    out: Tensor = trunk.ln_f(x)
    return out


def _attention(queries: Tensor, groups: Sequence[Group], cache: KVCache, layer: int) -> Tensor:
    """Attention of the new tokens (N, H, D) over the cache."""
    out: Tensor | None = None
    for group in groups:
        keys, values = cache.seen(layer, group.rows, group.width)  # (B, H, W, D) each
        found = functional.scaled_dot_product_attention(
            queries[group.tokens].transpose(1, 2), keys, values, attn_mask=group.mask
        )  # (B, H, T, D)
        found = found.transpose(1, 2).flatten(0, 1)  # (B T, H, D)
        if group.taken is None or group.places is None:
            return found
        if out is None:
            out = torch.empty_like(queries)
        out[group.places] = found[group.taken]
    assert out is not None  # noqa: S101 - there is a group
    return out


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions of queries and keys (N, 2, H, D) at once."""
    cosines, sines = (part.to(x.dtype)[:, None, None] for part in turn)  # (N, 1, 1, D / 2)
    one, two = x.chunk(2, dim=-1)
    return torch.cat((one * cosines - two * sines, two * cosines + one * sines), dim=-1)
