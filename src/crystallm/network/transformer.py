"""A decoder-only transformer of the GPT-2 or the Llama form.

Does not depend on crystals, languages or sampling: a token is a number here.

Letters of shapes: B rows, T tokens of a row, C width (`n_embd`), H heads, D = C / H, V vocabulary, W cached
tokens with the new ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from crystallm.errors import InputError
from crystallm.network.attention import (
    PLAIN_TOKENS,
    Attention,
    Rotation,
    additive_mask,
    attention_kernels,
    dropout,
    rotation_at,
    segment_mask,
    segment_positions,
)
from crystallm.network.conditions import ConditionEmbedding
from crystallm.network.config import INIT_STD, LAYER_NORM_EPS, ModelConfig
from crystallm.network.kv_cache import KVCache


class MLP(nn.Module):
    """Two linear layers of hidden width 4 C, with the tanh form of GELU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout_rate = config.dropout
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        out: Tensor = self.c_proj(self.activate(self.c_fc(x)))
        return dropout(out, self.dropout_rate) if self.dropout_rate and self.training else out

    @staticmethod
    def activate(x: Tensor) -> Tensor:
        """Apply the activation between the two layers."""
        return functional.gelu(x, approximate="tanh")


class SwiGLU(nn.Module):
    """Two linear layers of hidden width about 8/3 C, with a gate (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout_rate = config.dropout
        hidden = 64 * max(1, round(8 * config.n_embd / (3 * 64)))
        self.c_fc = nn.Linear(config.n_embd, 2 * hidden, bias=False)
        self.c_proj = nn.Linear(hidden, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        out: Tensor = self.c_proj(self.activate(self.c_fc(x)))
        return dropout(out, self.dropout_rate) if self.dropout_rate and self.training else out

    @staticmethod
    def activate(x: Tensor) -> Tensor:
        """Apply the activation between the two layers."""
        gate, value = x.chunk(2, dim=-1)
        return functional.silu(gate) * value


def _norm(config: ModelConfig) -> nn.Module:
    if config.form == "llama":
        return nn.RMSNorm(config.n_embd, eps=LAYER_NORM_EPS)
    return nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPS, bias=config.bias)


class TransformerBlock(nn.Module):
    """Attention and MLP, each applied to the normalized stream and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = _norm(config)
        self.attn = Attention(config)
        self.ln_2 = _norm(config)
        self.mlp = SwiGLU(config) if config.form == "llama" else MLP(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KVCache | None,
        layer: int,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.attn(self.ln_1(x), mask, cache, layer, rotation)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Trunk(nn.Module):
    """Embeddings, blocks and the last norm: all of the network but the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.context, config.n_embd) if config.form == "gpt2" else None
        self.h = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layer))
        self.ln_f = _norm(config)
        self.conditions = None
        if config.condition_scales:
            self.conditions = ConditionEmbedding(config.condition_scales, config.n_embd)


class GPT(nn.Module):
    """The network: parameters named as in the published state dicts, initialized as GPT-2.

    The head is tied: `lm_head.weight` is `transformer.wte.weight`. Initial weights come from torch's global
    generator; seed it for reproducible weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Trunk(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self._init_weights()

    def _init_weights(self) -> None:
        # Every block adds twice to the stream, whose variance would grow with 2 n_layer (GPT-2, sec. 2.3).
        residual_std = INIT_STD / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                std = residual_std if name.endswith("c_proj.weight") else INIT_STD
                nn.init.normal_(parameter, mean=0.0, std=std)

    def num_parameters(self) -> int:
        """Count the weights without position embeddings, as the paper does (its small model: 25.4 M)."""
        positions = self.transformer.wpe
        n_positions = 0 if positions is None else positions.weight.numel()
        return sum(p.numel() for p in self.parameters()) - n_positions

    def _compute_dtype(self) -> torch.dtype:
        """Return the dtype of matrix products on a CPU."""
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu")
        return self.transformer.wte.weight.dtype

    def pack(self) -> GPT:
        """Store the weights of linear layers column by column; names, shapes and values do not change.

        Products with few rows, as in decoding on a CPU in float32, then run up to twice as fast.
        """
        for block in self.transformer.h:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.data = layer.weight.data.t().contiguous().t()
        return self

    def compile_blocks(self) -> None:
        """Compile the blocks with torch.compile, all as one, for rows and tokens of any number.

        A whole network takes many minutes, since each size of its input is compiled again.
        """
        for block in self.transformer.h:
            block.compile(dynamic=True)

    def new_cache(self, rows: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache of `rows` rows, on the device and in the dtype of the weights."""
        weight = self.transformer.wte.weight
        return KVCache(self.config, rows, capacity, device=weight.device, dtype=weight.dtype)

    def features(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
        conditions: Tensor | None = None,
    ) -> Tensor:
        """Return the normalized stream (B, T, C), the input of the head. Arguments as for `forward`."""
        n_tokens = ids.shape[1]
        self._check_sizes(ids, segments, cache)
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
        rotation = None
        if trunk.wpe is None:
            rotation = rotation_at(positions[:, None], self.config.head_dim)
        else:
            x = x + trunk.wpe(positions)
        head: Tensor | None = None
        if conditions is not None:
            embedding, head = self._condition_vectors(conditions, segments).chunk(2, dim=-1)
            x = x + embedding
        if self.config.dropout and self.training:
            x = dropout(x, self.config.dropout)
        with attention_kernels(ids.device):
            for layer, block in enumerate(trunk.h):
                x = block(x, mask, cache, layer, rotation)
        if cache is not None:
            cache.advance(n_tokens)
        out: Tensor = trunk.ln_f(x)
        return out if head is None else out + head

    def condition_vectors(self, conditions: Tensor) -> Tensor:
        """Return the vectors (..., 2 C) of values of properties (..., P), NaN where unknown.

        Raises:
            InputError: the network has no conditions.
        """
        if self.transformer.conditions is None:
            raise InputError("the network has no conditions: train one with them")
        vectors: Tensor = self.transformer.conditions(conditions)
        return vectors

    def _condition_vectors(self, conditions: Tensor, segments: Tensor | None) -> Tensor:
        """Return the vectors of tokens, (B, T, 2 C) or (B, 1, 2 C), from values (B, S, P) of S segments."""
        vectors = self.condition_vectors(conditions)  # (B, S, 2 C)
        if segments is None:
            return vectors
        rows = torch.arange(len(segments), device=segments.device)[:, None]
        return vectors[rows, segments.clamp(min=0)]  # (B, T, 2 C)

    def _check_sizes(self, ids: Tensor, segments: Tensor | None, cache: KVCache | None) -> None:
        """Raise InputError if the tokens exceed the context or do not fit the cache."""
        n_rows, n_tokens = ids.shape
        n_total = n_tokens + (max(cache.lengths, default=0) if cache is not None else 0)
        if n_total > self.config.context:
            raise InputError(
                f"{n_total} tokens are more than the context of {self.config.context}; shorten the input"
            )
        if cache is None:
            return
        if segments is not None:
            raise InputError("segments and a cache exclude each other: a cached row is one segment")
        if n_rows != cache.n_rows or n_total > cache.capacity:
            raise InputError(
                f"{n_rows} rows of {n_total} tokens do not fit a cache with {cache.n_rows} rows of "
                f"{cache.capacity} in use"
            )

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
        conditions: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of the next token at every position.

        Args:
            ids: (B, T) tokens.
            positions: (B, T) positions of the tokens; by default 0, 1, ... in each row or segment, or after
                the cached tokens.
            segments: (B, T) int; a token attends to earlier tokens of its own segment only. Packed crystals
                are numbered 0, 1, ..., padding is -1 (its logits are finite and meaningless).
            cache: keys and values of earlier tokens; grows by T in place.
            conditions: (B, S, P) values of the properties of `config.conditions` of each segment, or of each
                row where S = 1 and there are no segments; NaN where unknown. None: all are unknown.

        Returns:
            (B, T, V) logits.

        Raises:
            InputError: more tokens than the context or the cache can hold, or segments together with a cache.
        """
        x = self.features(ids, positions=positions, segments=segments, cache=cache, conditions=conditions)
        logits: Tensor = self.lm_head(x)
        return logits
