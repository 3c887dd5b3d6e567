"""Attention, rotary positions, masks and dropout."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from crystallm.network.config import ROTARY_BASE

if TYPE_CHECKING:
    from crystallm.network.config import ModelConfig
    from crystallm.network.kv_cache import KVCache


# Windows up to here are trained on a CPU with plain products: the backward pass of torch's fused attention
# takes 210, 136 and 95 ms for 8,192 tokens in windows of 64, 128 and 256 (bf16, 4 heads of 64, one thread,
# torch 2.13), that of plain products 19, 26 and 52 ms. Longer windows cost memory with their length squared.
PLAIN_TOKENS = 256


Turn = tuple[Tensor, Tensor]
"""Cosines and sines of rotary positions, (B, 1, T, D / 2) beside queries (B, H, T, D)."""


class Attention(nn.Module):
    """Multi-head causal self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int, turn: Turn | None = None
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C).

        `mask`, broadcast to (B, H, T, W), is None for causal attention, bool for a kernel with a mask, or
        numbers to add to the scores for `plain_attention`.
        """
        n_rows, n_tokens, width = x.shape
        qkv = self.c_attn(x).view(n_rows, n_tokens, 3, self.n_head, width // self.n_head)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, D) each, views
        if turn is not None:
            queries, keys = turned(queries, turn), turned(keys, turn)
        if cache is not None:
            keys, values = cache.append(layer, keys, values)  # (B, H, W, D)
        dropout = self.dropout if self.training else 0.0
        if mask is not None and mask.is_floating_point():
            y = plain_attention(queries, keys, values, mask, dropout)  # (B, H, T, D)
        else:
            y = functional.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                dropout_p=dropout,
                # A single new token sees all that is cached; `is_causal` would show it the first column only.
                is_causal=mask is None and n_tokens > 1,
            )  # (B, H, T, D)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(n_rows, n_tokens, width))
        return dropped(out, self.dropout) if self.dropout and self.training else out


def attention_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Which kernels torch may take for attention while the block lasts: on a GPU any but cuDNN's.

    cuDNN plans anew for each shape: 6 ms a call on an H100 (torch 2.11, bf16, 256 rows), where a cache that
    grows and windows of many sizes give a new shape at almost every step.
    """
    if device.type != "cuda":
        return nullcontext()
    kept = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    found: AbstractContextManager[None] = sdpa_kernel(kept)
    return found


def plain_attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, dropout: float) -> Tensor:
    """Attention (B, H, T, D) by matrix products; `bias`, broadcast to (B, H, T, T), adds to the scores."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)  # (B, H, T, T)
    weights = torch.softmax(scores + bias, dim=-1)
    return (dropped(weights, dropout) if dropout else weights) @ values


def dropped(x: Tensor, share: float) -> Tensor:
    """A share of the entries of x set to 0, the others scaled so that the mean stays; follows torch's seed.

    On a CPU torch draws its random numbers one by one, which took a quarter of a training step; numpy's SFC64
    draws 64 bits in a nanosecond, four entries' worth.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.dropout(x, share)
    seed = int(torch.randint(2**62, ()))
    drawn = np.random.Generator(np.random.SFC64(seed)).integers(
        0, 2**64, (x.numel() + 3) // 4, dtype=np.uint64
    )
    kept = drawn.view(np.uint16)[: x.numel()] >= round(share * 2**16)
    scale = torch.tensor(1 / (1 - share), dtype=x.dtype)
    if x.dtype is torch.bfloat16:  # its bits: turning bools into bfloat16 takes longer than all the rest
        mask = torch.from_numpy(kept.astype(np.int16) * scale.view(torch.int16).numpy()).view(torch.bfloat16)
    else:
        mask = torch.from_numpy(kept.astype(np.float32)).to(x.dtype) * scale
    return x * mask.view(x.shape)


def turn_of(positions: Tensor, head_dim: int) -> Turn:
    """Rotary positions of places of any shape: entries i and i + D / 2 of a head are turned by one angle."""
    halves = torch.arange(0, head_dim, 2, device=positions.device)  # (D / 2,)
    angles = positions[..., None] * ROTARY_BASE ** (-halves / head_dim)
    return angles.cos(), angles.sin()


def turned(x: Tensor, turn: Turn) -> Tensor:
    """Queries or keys (..., D) turned by their places, whose cosines and sines broadcast to (..., D / 2)."""
    cosines, sines = (part.to(x.dtype) for part in turn)
    one, two = x.chunk(2, dim=-1)  # (..., D / 2) each
    return torch.cat((one * cosines - two * sines, two * cosines + one * sines), dim=-1)


def additive_mask(mask: Tensor | None, n_tokens: int, dtype: torch.dtype) -> Tensor:
    """0 where attended and -inf elsewhere, on the CPU; (1, 1, T, T) causal if `mask` is None."""
    if mask is None:
        mask = torch.ones(1, 1, n_tokens, n_tokens, dtype=torch.bool).tril()
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -math.inf)


def segment_mask(segments: Tensor) -> Tensor:
    """Attention inside equal neighbouring numbers, and causal: bool (B, 1, T, T), True where attended.

    Every token attends to itself, so that no row of the softmax is empty (an empty one would be NaN).
    """
    n_tokens = segments.shape[1]
    causal = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=segments.device).tril()
    return ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]


def segment_positions(segments: Tensor) -> Tensor:
    """Positions 0, 1, ... that restart where the segment number changes, (B, T)."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.zeros_like(index)
    starts[:, 1:] = torch.where(segments[:, 1:] != segments[:, :-1], index[:, 1:], 0)
    return index - starts.cummax(dim=1).values
