"""Forward pass of rows with different numbers of new tokens.

The new tokens of all rows are concatenated, (N, C) in place of (B, T, C), so that products with weights waste
nothing on padding. Attention on a CPU runs row by row in compiled kernels (`kernels`). Otherwise it is
torch's, padded: rows with short runs in one group, those with long runs in others.

Letters of shapes: N new tokens of all rows, B rows of a group, T tokens of its longest run, W cached and new
tokens of its longest row, C width, H heads, D = C / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from crystallm.network import kernels
from crystallm.network.attention import attention_kernels, rotate, rotation_at
from crystallm.network.products import BlockProducts, can_pack, packed_linear, pad, padded_size, plain_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from crystallm.network.attention import Rotation
    from crystallm.network.config import Ids
    from crystallm.network.kv_cache import KVCache
    from crystallm.network.transformer import GPT

    Function = Callable[[Tensor], Tensor]
    AttentionFunction = Callable[[Tensor, int], Tensor]


# Cost of attention on a CPU in microseconds (one thread, torch 2.13):
_CALL_COST = 25.0  # per call
_ROW_COST = 3.0  # per row
_TOKEN_COST = 1.5  # per token of each row
_BYTE_COST = 1e-4  # per byte of keys and values read from memory
_PRODUCT_COST = 3e-5  # per element of a key or value and token
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the rows' widths, tried as the width of the first group


@dataclass(frozen=True)
class Group:
    """Rows whose attention is computed together.

    Attributes:
        rows: indices of the rows in the cache, or a slice of it, which copies nothing.
        tokens: (B, T) indices of the new tokens among the N; padding has any index. For one row, a slice.
        width: W.
        mask: (B, 1, T, W) bool, True where attended.
        valid: (n) indices of the tokens among the B T; None if there is no padding, or for one row.
        indices: (n) indices of these tokens among the N; None if they are all N in order, or for one row.
    """

    rows: Tensor | slice
    tokens: Tensor | slice
    width: int
    mask: Tensor
    valid: Tensor | None
    indices: Tensor | None


@dataclass(frozen=True)
class Runs:
    """New tokens of all rows in use.

    Attributes:
        ids: (N) tokens, row by row.
        rows: (N) row of each token.
        positions: (N) position of each token in its row.
        groups: groups of rows whose attention is torch's.
        plan: (3, B) int64, for `kernels.RowAttention`; None if attention is torch's.
        lengths: cached and new tokens of each row.
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    plan: Ids | None
    lengths: tuple[int, ...]
    starts: tuple[int, ...]


def plan_runs(tokens: Sequence[Sequence[int]], cache: KVCache, *, by_row: bool = False) -> Runs:
    """Prepare the indices and masks of a forward pass.

    Args:
        tokens: new tokens of each row, at least one.
        by_row: use compiled attention, without tiles for all but long runs.
    """
    device = cache.keys.device
    lengths: Ids = np.array([len(run) for run in tokens])
    starts: Ids = np.cumsum(lengths) - lengths
    rows = np.repeat(np.arange(len(lengths)), lengths)
    cached: Ids = np.array(cache.lengths)
    positions = np.arange(int(lengths.sum())) - starts[rows] + cached[rows]
    if by_row:
        planned = [] if cache.tiled else _long_runs(lengths, cached)
    else:
        planned = _plan_groups(lengths, cached, cache)
    only = not by_row and len(planned) == 1
    groups = [_group(plan, (lengths, starts, cached), device, only=only) for plan in planned]
    return Runs(
        torch.tensor(list(chain.from_iterable(tokens)), device=device),
        torch.from_numpy(rows).to(device),
        torch.from_numpy(positions).to(device),
        tuple(groups),
        np.stack((starts, lengths, cached)) if by_row else None,
        tuple((cached + lengths).tolist()),
        tuple(starts.tolist()),
    )


def _plan_groups(lengths: Ids, cached: Ids, cache: KVCache) -> list[tuple[slice | Ids, int, int]]:
    """Plan the groups: rows, number of tokens of a run, number of columns.

    The first group holds all rows, with the first tokens of their runs and the first columns, and reads the
    cache in place. Rows with longer runs or more columns are computed again: on a CPU each by itself, in
    place; on a GPU, where a call costs more than a copy, together. On a CPU the first group is left out where
    single rows are cheaper.
    """
    all_rows = slice(0, len(lengths))
    widths = cached + lengths
    longest, widest = int(lengths.max()), int(widths.max())
    if _prefers_copies(cache.keys.device):
        usual = int(np.sort(lengths)[3 * (len(lengths) - 1) // 4])
        if longest <= 2 * usual:
            return [(all_rows, longest, widest)]
        return [(all_rows, usual, widest), (np.flatnonzero(lengths > usual), longest, widest)]
    _, _, n_head, _, head_dim = cache.keys.shape
    column_size = 2 * n_head * head_dim  # elements of key and value

    def cost(n_tokens: Any, width: Any) -> Any:
        """Cost of a row in a group, for numbers or arrays."""
        per_column = column_size * (_BYTE_COST * cache.keys.itemsize + _PRODUCT_COST * n_tokens)
        return _ROW_COST + n_tokens * _TOKEN_COST + per_column * width

    single_cost = _CALL_COST + cost(lengths, widths)  # (B,)
    best, lowest = (longest, widest), np.inf
    for n in np.unique(lengths).tolist():
        for width in {int(np.quantile(widths, share)) for share in _QUANTILES}:
            rest = (lengths > n) | (widths > width)
            total = len(lengths) * cost(n, width) + single_cost[rest].sum()
            if total < lowest:
                best, lowest = (n, width), total
    all_single = single_cost.sum() < lowest
    rest = np.flatnonzero(all_single | (lengths > best[0]) | (widths > best[1]))
    single: list[tuple[slice | Ids, int, int]] = [
        (slice(row, row + 1), int(lengths[row]), int(widths[row])) for row in rest.tolist()
    ]
    return single if all_single else [(all_rows, *best), *single]


def _long_runs(lengths: Ids, cached: Ids) -> list[tuple[slice | Ids, int, int]]:
    """Plan one group for each run long enough that torch's products are faster than compiled attention."""
    return [
        (slice(row, row + 1), int(lengths[row]), int(cached[row] + lengths[row]))
        for row in np.flatnonzero(lengths > kernels.LONG_RUN).tolist()
    ]


def _prefers_copies(device: torch.device) -> bool:
    """Return whether a call costs more than a copy of some rows of the cache."""
    return device.type != "cpu"


def _group(
    plan: tuple[slice | Ids, int, int], runs: tuple[Ids, Ids, Ids], device: torch.device, *, only: bool
) -> Group:
    """Build a group.

    Args:
        runs: length, start and cached tokens of each row.
    """
    rows, n_tokens, width = plan
    lengths, starts, cached = (each[rows] for each in runs)
    steps = np.arange(n_tokens)
    if isinstance(rows, slice) and len(lengths) == 1:
        start, mask = int(starts[0]), np.arange(width) <= (cached[0] + steps)[:, None]  # (T, W)
        tokens = slice(start, start + n_tokens)
        return Group(rows, tokens, width, torch.from_numpy(mask).to(device)[None, None], None, None)
    is_token = steps < lengths[:, None]  # (B, T)
    indices = np.where(is_token, starts[:, None] + steps, 0)
    last_column = cached[:, None] + np.where(is_token, steps, 0)  # (B, T)
    mask = np.arange(width) <= last_column[:, :, None]  # (B, T, W)
    no_padding = only and bool((lengths == n_tokens).all())
    return Group(
        rows if isinstance(rows, slice) else torch.from_numpy(rows).to(device),
        torch.from_numpy(indices).to(device),
        width,
        torch.from_numpy(mask).to(device)[:, None],
        None if no_padding else torch.from_numpy(np.flatnonzero(is_token.ravel())).to(device),
        None if no_padding else torch.from_numpy(indices[is_token]).to(device),
    )


class RaggedNetwork:
    """A network for ragged rows, its weights packed once.

    On a CPU in bfloat16 the weights of linear layers are packed, and tokens padded to few sizes, see
    `products`.

    Args:
        network: in evaluation mode; its weights must not change afterwards.
        compiled: use compiled kernels where there are any.

    Attributes:
        compiled: whether there are.
    """

    def __init__(self, network: GPT, *, compiled: bool = True) -> None:
        self.network = network
        weight = network.transformer.wte.weight
        packs = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and can_pack()
        linear = packed_linear if packs else plain_linear
        self._padded_size = padded_size if packs else int
        self._head = linear(network.lm_head)
        self.compiled = compiled and kernels.available(weight)
        self._tiled = self.compiled and kernels.can_tile(weight, network.config.head_dim)
        self._blocks = [BlockProducts.of(block, linear, fused=packs) for block in network.transformer.h]
        self._stream: kernels.Stream | None = None  # if compiled
        self._gated = network.config.form == "llama"
        self._table: Any = np.empty((2, 0, 0), np.float32)  # of its rotation by position

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """Return an empty cache in the order that is fastest."""
        cache = self.network.new_cache(rows, capacity)
        cache.tiled = self._tiled
        return cache

    def runs(self, tokens: Sequence[Sequence[int]], cache: KVCache) -> Runs:
        """Plan the pass of the new tokens of each row, at least one, for `features`."""
        return plan_runs(tokens, cache, by_row=self.compiled)

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (N, V) of the next token, float32, from `features`."""
        n = len(features)
        return self._head(pad(features, self._padded_size(n)))[:n].float()

    def features(self, runs: Runs, cache: KVCache, conditions: Tensor | None = None) -> Tensor:
        """Return the normalized stream (N, C) of new tokens and append them to the cache.

        Args:
            runs: from `runs`, one per row in use, within the capacity of the cache and the context.
            cache: keys and values of earlier tokens.
            conditions: (B, 2 C) vectors of each row, from `GPT.condition_vectors`; None for none.
        """
        trunk = self.network.transformer
        x: Tensor = trunk.wte(runs.ids)  # (N, C)
        if trunk.wpe is not None:
            x = x + trunk.wpe(runs.positions)
        head: Tensor | None = None
        if conditions is not None:
            embedding, head = conditions[runs.rows].chunk(2, dim=-1)  # (N, C) each
            x = x + embedding
        with attention_kernels(runs.ids.device):
            out = (self._apply_compiled if self.compiled else self._apply_blocks)(x, runs, cache)
        cache.set_lengths(runs.lengths)
        return out if head is None else out + head

    def _rotation(self, runs: Runs) -> Rotation | None:
        """Return the rotation of the new tokens; None for learned positions."""
        config = self.network.config
        return rotation_at(runs.positions[:, None, None], config.head_dim) if config.form == "llama" else None

    def _angles(self, runs: Runs) -> Any:
        """Return the cosines and sines of the new tokens, (2, N, D / 2), from a table of all positions."""
        longest = max(runs.lengths)
        if self._table.shape[1] < longest:
            n = 1 << (longest - 1).bit_length()
            table = rotation_at(torch.arange(n), self.network.config.head_dim)  # (n, D / 2) each
            self._table = torch.stack(table).float().numpy()
        return self._table.take(runs.positions.numpy(), axis=1)

    def _apply_compiled(self, x: Tensor, runs: Runs, cache: KVCache) -> Tensor:
        """Return the normalized stream (N, C) after all blocks, by compiled kernels."""
        assert runs.plan is not None  # noqa: S101 - planned for compiled attention
        n, size, trunk = len(x), self._padded_size(len(x)), self.network.transformer
        stream = self._stream
        if stream is None or stream.capacity < size:
            stream = self._stream = kernels.Stream(size, trunk.h[0], self.network.config)
        stream.set_size(size)
        stream.x[:n] = x
        angles = self._angles(runs) if self._gated else None  # the Llama form has rotary positions
        rows = kernels.RowAttention(runs.plan, angles, tiled=cache.tiled)
        rotation = self._rotation(runs) if runs.groups else None
        keys, values = kernels.array_of(cache.keys), kernels.array_of(cache.values)
        update = None
        for layer, block in enumerate(self._blocks):
            qkv = block.c_attn(stream.norm(update, block.ln_1))  # (N, 3 C)
            attended = stream.attend(qkv, rows, keys[layer], values[layer])  # (N, C)
            if runs.groups:
                _attend_long_runs(self._heads(qkv[:n]), runs, cache, rotation, layer, attended)
            update = block.c_proj(attended)
            activate = stream.gate if self._gated else block.activate
            update = block.narrow(activate(block.wide(stream.norm(update, block.ln_2))))
        return stream.norm(update, trunk.ln_f)[:n].clone()

    def _heads(self, qkv: Tensor) -> Tensor:
        """Return (N, 3 C) as (N, 3, H, D)."""
        return qkv.view(-1, 3, self.network.config.n_head, self.network.config.head_dim)

    def _apply_blocks(self, x: Tensor, runs: Runs, cache: KVCache) -> Tensor:
        """Return the normalized stream (N, C) after all blocks, by torch."""
        rotation = self._rotation(runs)
        n, size = len(x), self._padded_size(len(x))
        x = pad(x, size)
        attention = _torch_attention(runs, cache, rotation)
        for layer, block in enumerate(self._blocks):
            qkv = self._heads(block.c_attn(block.ln_1(x)))[:n]  # (N, 3, H, D)
            x = x + block.c_proj(pad(attention(qkv, layer).flatten(1), size))
            x = x + block.narrow(block.activate(block.wide(block.ln_2(x))))
        out: Tensor = self.network.transformer.ln_f(x[:n])
        return out


def _attend_long_runs(  # noqa: PLR0917 - as above, and where to
    qkv: Tensor, runs: Runs, cache: KVCache, rotation: Rotation | None, layer: int, out: Tensor
) -> None:
    """Write the attention of the groups, from qkv (N, 3, H, D) of new tokens, to `out` (N or more, ...)."""
    queries = qkv[:, 0] if rotation is None else rotate(qkv[:, :1], rotation)[:, 0]
    _attend_groups(queries, runs.groups, cache, layer, out[: len(queries)].view_as(queries))


def _torch_attention(runs: Runs, cache: KVCache, rotation: Rotation | None) -> AttentionFunction:
    """Return attention by torch."""

    def attention(qkv: Tensor, layer: int) -> Tensor:
        queries, keys, values = qkv.unbind(1)  # (N, H, D) each, views
        if rotation is not None:
            queries, keys = rotate(qkv[:, :2], rotation).unbind(1)
        cache.put(layer, runs.rows, runs.positions, keys, values)
        return _attend_groups(queries, runs.groups, cache, layer)

    return attention


def _attend_groups(
    queries: Tensor, groups: Sequence[Group], cache: KVCache, layer: int, out: Tensor | None = None
) -> Tensor:
    """Compute the attention (N, H, D) of the new tokens of groups; written to `out` if given."""
    for group in groups:
        keys, values = cache.columns(layer, group.rows, group.width)  # (B, H, W, D) each
        single = isinstance(group.tokens, slice)
        group_queries = queries[group.tokens][None] if single else queries[group.tokens]  # (B, T, H, D)
        y = functional.scaled_dot_product_attention(
            group_queries.transpose(1, 2), keys, values, attn_mask=group.mask
        )  # (B, H, T, D)
        y = y.transpose(1, 2).flatten(0, 1)  # (B T, H, D)
        if out is None:
            if len(groups) == 1 and group.valid is None:
                return y
            out = torch.empty_like(queries)
        out[group.tokens if single else group.indices] = y if group.valid is None else y[group.valid]
    assert out is not None  # noqa: S101 - there is at least one group
    return out
