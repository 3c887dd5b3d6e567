"""Attention, rotary positions, masks and dropout."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from crystallm.network.config import ROTARY_BASE, ModelConfig
from crystallm.network.kv_cache import KVCache

# Windows of at most this many tokens are trained on a CPU with plain matrix products. For 8,192 tokens in
# windows of 64, 128 and 256, the backward pass of torch's fused attention takes 210, 136 and 95 ms, that of
# plain products 19, 26 and 52 ms (bf16, 4 heads of 64, one thread, torch 2.13). Memory of plain products
# grows with the square of the window.
PLAIN_TOKENS = 256


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of rotary positions, (B, 1, T, D / 2) each for queries (B, H, T, D)."""


class Attention(nn.Module):
    """Multi-head causal self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout_rate = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KVCache | None,
        layer: int,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C).

        Args:
            mask: broadcasts to (B, H, T, W). None for causal attention, bool for a kernel with a mask, floats
                to add to the scores for `plain_attention`.
            cache: receives the new keys and values; None without a cache.
            layer: index of this layer in the cache.
            rotation: of rotary positions; None for learned positions.
        """
        n_rows, n_tokens, width = x.shape
        qkv = self.c_attn(x).view(n_rows, n_tokens, 3, self.n_head, width // self.n_head)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, D) each, views
        if rotation is not None:
            queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        if cache is not None:
            keys, values = cache.append(layer, keys, values)  # (B, H, W, D)
        rate = self.dropout_rate if self.training else 0.0
        if mask is not None and mask.is_floating_point():
            y = plain_attention(queries, keys, values, mask, rate)  # (B, H, T, D)
        else:
            y = functional.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                dropout_p=rate,
                # A single new token attends to all cached columns; `is_causal` would limit it to the first.
                is_causal=mask is None and n_tokens > 1,
            )  # (B, H, T, D)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(n_rows, n_tokens, width))
        return dropout(out, rate) if rate else out


def attention_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Restrict torch's attention kernels within a block: on a GPU all but cuDNN's.

    cuDNN makes a plan for each shape, 6 ms a call on an H100 (torch 2.11, bf16, 256 rows). A growing cache
    and windows of many sizes give a new shape at almost every step.
    """
    if device.type != "cuda":
        return nullcontext()
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    context: AbstractContextManager[None] = sdpa_kernel(backends)
    return context


def plain_attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, rate: float) -> Tensor:
    """Compute attention (B, H, T, D) by matrix products.

    Args:
        queries: (B, H, T, D), as are keys and values.
        bias: added to the scores; broadcasts to (B, H, T, T).
    """
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)  # (B, H, T, T)
    weights = torch.softmax(scores + bias, dim=-1)
    return (dropout(weights, rate) if rate else weights) @ values


def dropout(x: Tensor, rate: float) -> Tensor:
    """Set a fraction `rate` of the entries to 0 and scale the others to keep the mean; follows torch's seed.

    On a CPU torch draws random numbers one by one, which took a quarter of a training step. numpy's SFC64
    draws 64 bits, enough for four entries, in a nanosecond.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.dropout(x, rate)
    seed = int(torch.randint(2**62, ()))
    random = np.random.Generator(np.random.SFC64(seed)).integers(
        0, 2**64, (x.numel() + 3) // 4, dtype=np.uint64
    )
    kept = random.view(np.uint16)[: x.numel()] >= round(rate * 2**16)
    scale = torch.tensor(1 / (1 - rate), dtype=x.dtype)
    if x.dtype is torch.bfloat16:  # by its bits: converting bools to bfloat16 takes longer than all else here
        mask = torch.from_numpy(kept.astype(np.int16) * scale.view(torch.int16).numpy()).view(torch.bfloat16)
    else:
        mask = torch.from_numpy(kept.astype(np.float32)).to(x.dtype) * scale
    return x * mask.view(x.shape)


def rotation_at(positions: Tensor, head_dim: int) -> Rotation:
    """Return cosines and sines (..., D / 2) of positions (...).

    Entries i and i + D / 2 of a head form a pair, rotated by position * ROTARY_BASE^(-2 i / D).
    """
    halves = torch.arange(0, head_dim, 2, device=positions.device)  # (D / 2,)
    angles = positions[..., None] * ROTARY_BASE ** (-halves / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate queries or keys (..., D); cosines and sines broadcast to (..., D / 2)."""
    cosines, sines = (part.to(x.dtype) for part in rotation)
    left, right = x.chunk(2, dim=-1)  # (..., D / 2) each
    return torch.cat((left * cosines - right * sines, right * cosines + left * sines), dim=-1)


def additive_mask(mask: Tensor | None, n_tokens: int, dtype: torch.dtype) -> Tensor:
    """Return a CPU mask with 0 where attended and -inf elsewhere; (1, 1, T, T) causal if `mask` is None."""
    if mask is None:
        mask = torch.ones(1, 1, n_tokens, n_tokens, dtype=torch.bool).tril()
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -math.inf)


def segment_mask(segments: Tensor) -> Tensor:
    """Return the causal mask within segments: bool (B, 1, T, T), True where attended.

    Every token attends to itself: an empty row of the softmax would be NaN.

    Args:
        segments: (B, T) segment numbers; neighbouring tokens of equal number belong together.
    """
    n_tokens = segments.shape[1]
    causal = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=segments.device).tril()
    return ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]


def segment_positions(segments: Tensor) -> Tensor:
    """Return positions (B, T) 0, 1, ... that restart where the segment number changes."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.zeros_like(index)
    starts[:, 1:] = torch.where(segments[:, 1:] != segments[:, :-1], index[:, 1:], 0)
    return index - starts.cummax(dim=1).values
