"""The network: a decoder-only transformer of the GPT-2 or the Llama form, its configuration and its cache.

Knows tensors, not crystals: a token is a number here, and where weights or tokens come from, what they mean
and how the next one is chosen is the business of other modules. Needs torch, numpy and pydantic.

Letters of shapes: B rows, T tokens of a row, C width (`n_embd`), H heads, D = C / H, V vocabulary, W cached
tokens with the new ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from crystallm.errors import InputError
from crystallm.network.attention import (
    PLAIN_TOKENS,
    Attention,
    additive_mask,
    attention_kernels,
    dropped,
    segment_mask,
    segment_positions,
    turn_of,
)
from crystallm.network.config import INIT_STD, LAYER_NORM_EPS
from crystallm.network.kv_cache import KVCache

if TYPE_CHECKING:
    from crystallm.network.attention import Turn
    from crystallm.network.config import ModelConfig


class MLP(nn.Module):
    """Two linear layers, four times as wide between, with the tanh form of GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        out: Tensor = self.c_proj(self.between(self.c_fc(x)))
        return dropped(out, self.dropout) if self.dropout and self.training else out

    @staticmethod
    def between(x: Tensor) -> Tensor:
        """What stands between the two layers."""
        return functional.gelu(x, approximate="tanh")


class SwiGLU(nn.Module):
    """Two linear layers, about 8/3 as wide between, where one half gates the other (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        hidden = 64 * max(1, round(8 * config.n_embd / (3 * 64)))
        self.c_fc = nn.Linear(config.n_embd, 2 * hidden, bias=False)
        self.c_proj = nn.Linear(hidden, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        out: Tensor = self.c_proj(self.between(self.c_fc(x)))
        return dropped(out, self.dropout) if self.dropout and self.training else out

    @staticmethod
    def between(x: Tensor) -> Tensor:
        """What stands between the two layers."""
        gate, value = x.chunk(2, dim=-1)
        return functional.silu(gate) * value


def _norm(config: ModelConfig) -> nn.Module:
    if config.form == "llama":
        return nn.RMSNorm(config.n_embd, eps=LAYER_NORM_EPS)
    return nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPS, bias=config.bias)


class Block(nn.Module):
    """Attention and MLP, each on the normalised stream and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = _norm(config)
        self.attn = Attention(config)
        self.ln_2 = _norm(config)
        self.mlp = SwiGLU(config) if config.form == "llama" else MLP(config)

    def forward(
        self, x: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int, turn: Turn | None = None
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.attn(self.ln_1(x), mask, cache, layer, turn)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Trunk(nn.Module):
    """Embeddings, blocks and the last norm: everything but the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.context, config.n_embd) if config.form == "gpt2" else None
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = _norm(config)


class GPT(nn.Module):
    """The network. Parameters have the names of the published state dicts; weights start as GPT-2's do.

    The head is tied: `lm_head.weight` is `transformer.wte.weight`. Initial weights come from torch's global
    generator; seed it for a reproducible start.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Trunk(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self._initialise()

    def _initialise(self) -> None:
        # Every block adds twice to the stream, so its variance would grow with 2 n_layer (GPT-2, sec. 2.3).
        residual_std = INIT_STD / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                std = residual_std if name.endswith("c_proj.weight") else INIT_STD
                nn.init.normal_(parameter, mean=0.0, std=std)

    def num_parameters(self) -> int:
        """Number of weights without the position embeddings, as the paper counts (its small one: 25.4 M)."""
        positions = self.transformer.wpe
        n_positions = 0 if positions is None else positions.weight.numel()
        return sum(p.numel() for p in self.parameters()) - n_positions

    def _compute_dtype(self) -> torch.dtype:
        """In which matrix products on a CPU are computed."""
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu")
        return self.transformer.wte.weight.dtype

    def pack(self) -> GPT:
        """Store the weights of linear layers column by column; names, shapes and values stay.

        Products with few rows, as in decoding on a CPU in float32, read them up to twice as fast so.
        """
        for block in self.transformer.h:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.data = layer.weight.data.t().contiguous().t()
        return self

    def new_cache(self, rows: int, capacity: int | None = None) -> KVCache:
        """An empty cache for `rows` rows, on the device and in the dtype of the weights."""
        weight = self.transformer.wte.weight
        return KVCache(self.config, rows, capacity, device=weight.device, dtype=weight.dtype)

    def features(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The normalised stream (B, T, C) that the head turns into logits. Arguments as for `forward`."""
        n_rows, n_tokens = ids.shape
        before = max(cache.lengths, default=0) if cache is not None else 0
        if before + n_tokens > self.config.context:
            raise InputError(
                f"{before + n_tokens} tokens are more than the context of {self.config.context}; "
                "shorten the input"
            )
        if cache is not None:
            if segments is not None:
                raise InputError("segments and a cache exclude each other: a cached row is one segment")
            if n_rows != cache.n_rows or before + n_tokens > cache.capacity:
                raise InputError(
                    f"{n_rows} rows of {before + n_tokens} tokens do not fit a cache with {cache.n_rows} "
                    f"rows of {cache.capacity} in use"
                )
        mask: Tensor | None = None  # broadcast to (B, H, T, W)
        if cache is not None:
            mask = cache.mask(n_tokens)
            positions = cache.positions(n_tokens) if positions is None else positions
        elif segments is not None:
            mask = segment_mask(segments)
            positions = segment_positions(segments) if positions is None else positions
        elif positions is None:
            positions = torch.arange(n_tokens, device=ids.device)[None]  # (1, T)
        if (
            cache is None
            and n_tokens <= PLAIN_TOKENS
            and ids.device.type == "cpu"
            and torch.is_grad_enabled()
        ):
            mask = additive_mask(mask, n_tokens, self._compute_dtype())
        trunk = self.transformer
        x: Tensor = trunk.wte(ids)  # (B, T, C)
        turn = None
        if trunk.wpe is None:
            turn = turn_of(positions[:, None], self.config.head_dim)
        else:
            x = x + trunk.wpe(positions)
        if self.config.dropout and self.training:
            x = dropped(x, self.config.dropout)
        with attention_kernels(ids.device):
            for layer, block in enumerate(trunk.h):
                x = block(x, mask, cache, layer, turn)
        if cache is not None:
            cache.advance(n_tokens)
        out: Tensor = trunk.ln_f(x)
        return out

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits of the next token at every position.

        Args:
            ids: (B, T) tokens.
            positions: (B, T) places of the tokens; by default 0, 1, ... in each row, or in each
                segment, or behind what the cache holds.
            segments: (B, T) int; a token attends to earlier tokens with its own number only. Packed crystals
                are numbered 0, 1, ..., padding is -1 (whose logits are finite and mean nothing).
            cache: keys and values of the tokens before; grows by T in place.

        Returns:
            (B, T, V) logits.

        Raises:
            InputError: more tokens than the context or the cache holds, or segments together with a cache.
        """
        logits: Tensor = self.lm_head(self.features(ids, positions=positions, segments=segments, cache=cache))
        return logits
