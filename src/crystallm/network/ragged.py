"""Rows that go on by different numbers of tokens, through the network in one pass.

All new tokens stand one behind the other, (N, C) in place of (B, T, C), so that products with weights waste
nothing on padding. Attention on a CPU is row by row where that is compiled (`kernels`). Otherwise it is
torch's and padded: rows with short runs together, those with long ones apart.

Knows tensors and a `KVCache`, not how the next token is chosen. Letters of shapes: N new tokens of all rows,
B rows of a group, T tokens of its longest run, W cached tokens of its longest row with the new ones, C width,
H heads, D = C / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from crystallm.network import kernels
from crystallm.network.attention import attention_kernels, turn_of, turned
from crystallm.network.transformer import MLP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from crystallm.network.attention import Turn
    from crystallm.network.config import Ids
    from crystallm.network.kv_cache import KVCache
    from crystallm.network.transformer import GPT

    Function = Callable[[Tensor], Tensor]
    Attention = Callable[[Tensor, int], Tensor]


# What attention costs on a CPU, microseconds (one thread, torch 2.13):
_CALL = 25.0  # a call

_ROW = 3.0  # a row

_TOKEN = 1.5  # a token of each row

_BYTE = 1e-4  # a byte of keys and values, as memory gives it

_PRODUCT = 3e-5  # a number of a key or value for each token

_TOKENS = 64  # for which weights are packed

_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # of rows whose columns the first group may hold


@dataclass(frozen=True)
class Group:
    """Rows whose attention is computed together.

    Attributes:
        rows: their numbers in the cache, or the slice of it that they are, which copies nothing.
        tokens: (B, T) their new tokens among the N; padding points to any. For one row, a slice.
        width: W.
        mask: (B, 1, T, W) bool, True where attended.
        taken: (n) which of the B T are tokens of the group; None for all, or for one row.
        places: (n) where these stand among the N; None where the group holds all N in order, or for one row.
    """

    rows: Tensor | slice
    tokens: Tensor | slice
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
        groups: the rows, parted, whose attention is torch's.
        plan: (3, B) int64, of the rows, for `kernels.RowAttention`; None if attention is torch's.
        lengths: tokens of each row, cached and new.
        starts: of each row's run among the N.
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    plan: Ids | None
    lengths: tuple[int, ...]
    starts: tuple[int, ...]


def runs_of(tokens: Sequence[Sequence[int]], cache: KVCache, *, by_row: bool = False) -> Runs:
    """What a pass needs to know of its tokens.

    Args:
        tokens: new ones of each row, one at least.
        cache: in which the rows are.
        by_row: attention is compiled, for all but long runs.
    """
    device = cache.keys.device
    lengths: Ids = np.array([len(run) for run in tokens])
    starts: Ids = np.cumsum(lengths) - lengths  # of each row's run among the N
    rows = np.repeat(np.arange(len(lengths)), lengths)
    cached: Ids = np.array(cache.lengths)
    positions = np.arange(int(lengths.sum())) - starts[rows] + cached[rows]
    parts = (lengths, starts, cached)
    parted = _long(lengths, cached) if by_row else _parted(lengths, cached, cache)
    groups = [_group(part, parts, device, alone=not by_row and len(parted) == 1) for part in parted]
    return Runs(
        torch.tensor(list(chain.from_iterable(tokens)), device=device),
        torch.from_numpy(rows).to(device),
        torch.from_numpy(positions).to(device),
        tuple(groups),
        np.stack((starts, lengths, cached)) if by_row else None,
        tuple((cached + lengths).tolist()),
        tuple(starts.tolist()),
    )


def _parted(lengths: Ids, cached: Ids, cache: KVCache) -> list[tuple[slice | Ids, int, int]]:
    """Rows of each group, how many tokens of their runs it computes, and how many columns these see.

    All rows are in the first, which reads the cache where it stands, with the first tokens of their runs and
    the first columns. Those with longer runs or more columns are computed again: on a CPU each alone, where
    it stands; on a GPU, where a call costs more than a copy, together. On a CPU there is no first group where
    it is cheaper to take every row alone.
    """
    everyone = slice(0, len(lengths))
    widths = cached + lengths
    longest, widest = int(lengths.max()), int(widths.max())
    if _copies(cache.keys.device):
        usual = int(np.sort(lengths)[3 * (len(lengths) - 1) // 4])
        if longest <= 2 * usual:
            return [(everyone, longest, widest)]
        return [(everyone, usual, widest), (np.flatnonzero(lengths > usual), longest, widest)]
    _, _, n_head, _, head_dim = cache.keys.shape
    a_column = 2 * n_head * head_dim  # numbers

    def cost(n_tokens: Any, width: Any) -> Any:
        """Of a row in a call with others, for numbers or arrays."""
        seen = a_column * (_BYTE * cache.keys.itemsize + _PRODUCT * n_tokens)
        return _ROW + n_tokens * _TOKEN + seen * width

    own = _CALL + cost(lengths, widths)  # of each row alone
    best, least = (longest, widest), np.inf
    for n in np.unique(lengths).tolist():
        for width in {int(np.quantile(widths, share)) for share in _SHARES}:
            alone = (lengths > n) | (widths > width)
            total = len(lengths) * cost(n, width) + own[alone].sum()
            if total < least:
                best, least = (n, width), total
    apart = own.sum() < least
    alone = np.flatnonzero(apart | (lengths > best[0]) | (widths > best[1])).tolist()
    single: list[tuple[slice | Ids, int, int]] = [
        (slice(row, row + 1), int(lengths[row]), int(widths[row])) for row in alone
    ]
    return single if apart else [(everyone, *best), *single]


def _long(lengths: Ids, cached: Ids) -> list[tuple[slice | Ids, int, int]]:
    """Rows with runs so long that torch's products are quicker than rows of scalar products, as `_parted`."""
    return [
        (slice(row, row + 1), int(lengths[row]), int(cached[row] + lengths[row]))
        for row in np.flatnonzero(lengths > kernels.LONG).tolist()
    ]


def _copies(device: torch.device) -> bool:
    """Whether a call costs more than a copy of some rows of the cache."""
    return device.type != "cpu"


def _group(
    part: tuple[slice | Ids, int, int], runs: tuple[Ids, Ids, Ids], device: torch.device, *, alone: bool
) -> Group:
    """A part as `_parted` gives it, the only one perhaps, of runs (length, start, tokens before it)."""
    rows, n_tokens, width = part
    n_own, first, known = (each[rows] for each in runs)
    steps = np.arange(n_tokens)
    if isinstance(rows, slice) and len(n_own) == 1:
        start, seen = int(first[0]), np.arange(width) <= (known[0] + steps)[:, None]  # (T, W)
        mine = slice(start, start + n_tokens)
        return Group(rows, mine, width, torch.from_numpy(seen).to(device)[None, None], None, None)
    there = steps < n_own[:, None]  # (B, T)
    tokens = np.where(there, first[:, None] + steps, 0)
    reach = known[:, None] + np.where(there, steps, 0)  # (B, T) the last column that a token sees
    mask = np.arange(width) <= reach[:, :, None]  # (B, T, W)
    whole = alone and bool((n_own == n_tokens).all())
    return Group(
        rows if isinstance(rows, slice) else torch.from_numpy(rows).to(device),
        torch.from_numpy(tokens).to(device),
        width,
        torch.from_numpy(mask).to(device)[:, None],
        None if whole else torch.from_numpy(np.flatnonzero(there.ravel())).to(device),
        None if whole else torch.from_numpy(tokens[there]).to(device),
    )


class Reader:
    """A network that reads runs, its weights packed once.

    On a CPU in bfloat16 the weights of linear layers are stored as oneDNN's products want them: 1.2 to 1.8
    times as fast for up to 200 tokens, and GELU costs nothing beside them. It makes a kernel for each number
    of tokens, which takes three to nine times as long as to use it: tokens are filled up to few numbers.

    Args:
        network: in evaluation mode; its weights must not change any more.
        compiled: take what is compiled, where there is such a thing.
    """

    def __init__(self, network: GPT, *, compiled: bool = True) -> None:
        self.network = network
        weight = network.transformer.wte.weight
        packs = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _can_pack()
        linear = _packed if packs else _plain
        self._filled = _filled if packs else int
        self._head = linear(network.lm_head)
        self._compiled = compiled and kernels.available(weight)
        self._norm = self._norm_of(network.transformer.ln_f)
        self._blocks = [self._block(block, linear, fused=packs) for block in network.transformer.h]

    def runs(self, tokens: Sequence[Sequence[int]], cache: KVCache) -> Runs:
        """What `features` needs to know of new tokens of each row, one at least."""
        return runs_of(tokens, cache, by_row=self._compiled)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (N, V) of the next token, float32, from `features`."""
        n = len(features)
        return self._head(_fill(features, self._filled(n)))[:n].float()

    def features(self, runs: Runs, cache: KVCache) -> Tensor:
        """The normalised stream (N, C) at new tokens, which are appended to the cache.

        Args:
            runs: from `runs`, one for each row of the cache in use, within its capacity and the context.
            cache: of this network.
        """
        trunk, config = self.network.transformer, self.network.config
        x: Tensor = trunk.wte(runs.ids)  # (N, C)
        turn = None
        if trunk.wpe is None:
            turn = turn_of(runs.positions[:, None, None], config.head_dim)
        else:
            x = x + trunk.wpe(runs.positions)
        with attention_kernels(runs.ids.device):
            x = self._through(x, runs, cache, turn)
        cache.set_lengths(runs.lengths)
        return self._norm(x[: len(runs.ids)])

    def _through(self, x: Tensor, runs: Runs, cache: KVCache, turn: Turn | None) -> Tensor:
        """The stream (N, C) behind all blocks, perhaps with rows of no meaning behind the N."""
        config = self.network.config
        n, filled = len(x), self._filled(len(x))
        x = _fill(x, filled)
        attention = (_padded if runs.plan is None else _by_row)(runs, cache, turn)
        for layer, block in enumerate(self._blocks):
            qkv = block.attend(block.ln_1(x)).view(-1, 3, config.n_head, config.head_dim)[:n]
            x = x + block.gather(_fill(attention(qkv, layer).flatten(1), filled))
            x = x + block.mlp(block.ln_2(x))
        return x

    def _norm_of(self, module: nn.Module) -> Function:
        return kernels.norm_of(module) if self._compiled else module

    def _block(self, block: Any, linear: Callable[..., Function], *, fused: bool) -> _Block:
        mlp = block.mlp
        gelu = fused and isinstance(mlp, MLP)
        wide, narrow = linear(mlp.c_fc, *(("gelu", "tanh") if gelu else ())), linear(mlp.c_proj)
        between = kernels.between_of(mlp) if self._compiled else mlp.between

        def through(x: Tensor) -> Tensor:
            return narrow(wide(x) if gelu else between(wide(x)))

        norms = self._norm_of(block.ln_1), self._norm_of(block.ln_2)
        return _Block(norms[0], linear(block.attn.c_attn), linear(block.attn.c_proj), norms[1], through)


@dataclass(frozen=True)
class _Block:
    """What a block of the network does with (N, C)."""

    ln_1: Function
    attend: Function
    gather: Function
    ln_2: Function
    mlp: Function


def _filled(n_tokens: int) -> int:
    """The next number of tokens for which there is to be a kernel: products go in steps of 16 rows."""
    if n_tokens <= 8:
        return 1 << (n_tokens - 1).bit_length()
    step = 16 if n_tokens <= 256 else 64 if n_tokens <= 1024 else 256
    return -(-n_tokens // step) * step


def _fill(x: Tensor, n: int) -> Tensor:
    """A stream (N, C) with zeros behind it, (n, C)."""
    return x if len(x) == n else functional.pad(x, (0, 0, 0, n - len(x)))


def _plain(layer: nn.Linear) -> Function:
    weight, bias = layer.weight, layer.bias
    return lambda x: functional.linear(x, weight, bias)


def _packed(layer: nn.Linear, then: str = "none", how: str = "") -> Function:
    weight = _onednn("_reorder_linear_weight")(layer.weight.detach().contiguous(), _TOKENS)
    bias = layer.bias
    product = _onednn("_linear_pointwise")
    return lambda x: product(x, weight, bias, then, [], how)


def _onednn(name: str) -> Any:
    """An operator by which torch's own compiler calls oneDNN; it has no public name."""
    return getattr(torch.ops.mkldnn, name)


@cache
def _can_pack() -> bool:
    """Whether torch and this processor have products of packed bfloat16 weights."""
    try:
        one = torch.ones(2, 64, dtype=torch.bfloat16)
        weight = _onednn("_reorder_linear_weight")(torch.ones(64, 64, dtype=torch.bfloat16), 2)
        out = _onednn("_linear_pointwise")(one, weight, None, "gelu", [], "tanh")
    except (AttributeError, RuntimeError):
        return False
    return bool((out == 64).all())


def _by_row(runs: Runs, cache: KVCache, turn: Turn | None) -> Attention:
    """Compiled attention, but for long runs."""
    assert runs.plan is not None  # noqa: S101 - the runs are meant for this
    rows = kernels.RowAttention(runs.plan, turn)

    def attention(qkv: Tensor, layer: int) -> Tensor:
        out = rows(qkv, cache.keys[layer], cache.values[layer])
        if not runs.groups:
            return out
        queries = qkv[:, 0] if turn is None else turned(qkv[:, :1], turn)[:, 0]
        return _attention(queries, runs.groups, cache, layer, out)

    return attention


def _padded(runs: Runs, cache: KVCache, turn: Turn | None) -> Attention:
    """Attention by torch."""

    def attention(qkv: Tensor, layer: int) -> Tensor:
        queries, keys, values = qkv.unbind(1)  # (N, H, D) each, views
        if turn is not None:
            queries, keys = turned(qkv[:, :2], turn).unbind(1)
        cache.put(layer, runs.rows, runs.positions, keys, values)
        return _attention(queries, runs.groups, cache, layer)

    return attention


def _attention(
    queries: Tensor, groups: Sequence[Group], cache: KVCache, layer: int, out: Tensor | None = None
) -> Tensor:
    """Attention of the new tokens (N, H, D) of groups over the cache; put into `out` if given."""
    for group in groups:
        keys, values = cache.seen(layer, group.rows, group.width)  # (B, H, W, D) each
        one = isinstance(group.tokens, slice)
        own = queries[group.tokens][None] if one else queries[group.tokens]  # (B, T, H, D)
        found = functional.scaled_dot_product_attention(
            own.transpose(1, 2), keys, values, attn_mask=group.mask
        )  # (B, H, T, D)
        found = found.transpose(1, 2).flatten(0, 1)  # (B T, H, D)
        if out is None:
            if len(groups) == 1 and group.taken is None:
                return found
            out = torch.empty_like(queries)
        out[group.tokens if one else group.places] = found if group.taken is None else found[group.taken]
    assert out is not None  # noqa: S101 - there is a group
    return out
