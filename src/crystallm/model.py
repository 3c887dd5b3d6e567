"""The network: a decoder-only transformer of the GPT-2 or the Llama form, its configuration and its cache.

Knows tensors, not crystals: a token is a number here, and where weights or tokens come from, what they mean
and how the next one is chosen is the business of other modules. Needs torch, numpy and pydantic.

Letters of shapes: B rows, T tokens of a row, C width (`n_embd`), H heads, D = C / H, V vocabulary, W cached
tokens with the new ones.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYER_NORM_EPS = 1e-5
ROTARY_BASE = 10000.0  # of the wavelengths of rotary positions (arXiv:2104.09864)
INIT_STD = 0.02  # GPT-2's
# Windows up to here are trained on a CPU with plain products: the backward pass of torch's fused attention
# takes 210, 136 and 95 ms for 8,192 tokens in windows of 64, 128 and 256 (bf16, 4 heads of 64, one thread,
# torch 2.13), that of plain products 19, 26 and 52 ms. Longer windows cost memory with their length squared.
PLAIN_TOKENS = 256


class ModelConfig(BaseModel):
    """What is needed to build a network. Frozen; refuses unknown keys; saved as JSON beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    language: str = Field(min_length=1)
    """Name of the language that the network writes: `cif` or `orbits`."""
    form: Literal["gpt2", "llama"] = "gpt2"
    """GPT-2: learned positions, LayerNorm, GELU; or Llama: rotary positions, RMSNorm, SwiGLU, no biases."""
    vocab_size: int = Field(ge=1, le=65536)
    """Number of tokens V. At most 65,536, as streams on disk are uint16."""
    context: int = Field(default=1024, ge=1)
    """Largest number of tokens that the network sees at once; the number of position embeddings, if any."""
    n_layer: int = Field(default=8, ge=1)
    """Number of transformer blocks."""
    n_head: int = Field(default=8, ge=1)
    """Attention heads of a block; they share the width evenly."""
    n_embd: int = Field(default=512, ge=1)
    """Width C of the residual stream."""
    bias: bool = False
    """Whether linear layers and layer norms have an additive bias."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of activations dropped while training; none is dropped in evaluation."""

    @model_validator(mode="after")
    def _heads_share_width(self) -> ModelConfig:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        if self.form == "llama" and (self.bias or self.head_dim % 2):
            raise ValueError(
                f"the form llama has no biases and an even width of heads: bias={self.bias}, "
                f"n_embd={self.n_embd}, n_head={self.n_head}"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Width D of one head."""
        return self.n_embd // self.n_head


class KVCache:
    """Keys and values of the tokens that each row has seen, preallocated and written in place.

    Rows are ragged: each has its own length, and all start at column 0. The first `n_rows` of the allocated
    rows are in use; `GPT.forward(ids, cache=cache)` takes exactly these and appends its T tokens to each.

    Args:
        config: of the network that will fill it.
        rows: allocated rows B.
        capacity: allocated tokens of a row; the network's context if None.
        device, dtype: those of the network's weights.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.capacity = config.context if capacity is None else capacity
        shape = (config.n_layer, rows, config.n_head, self.capacity, config.head_dim)
        # Zeros, not empty: a masked column must not hold a NaN, as 0 * NaN is NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)  # (n_layer, B, H, capacity, D)
        self.values = torch.zeros(shape, device=device, dtype=dtype)  # (n_layer, B, H, capacity, D)
        self._lengths = [0] * rows
        self.n_rows = rows
        self._set_view()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of cached tokens of each row in use."""
        return tuple(self._lengths[: self.n_rows])

    def _set_view(self) -> None:
        """Derive what a forward pass needs from the lengths on the host (no synchronisation with a GPU)."""
        used = self._lengths[: self.n_rows]
        self._longest = max(used, default=0)
        self._even = min(used, default=0) == self._longest
        device = self.keys.device
        self._starts = torch.tensor(used, dtype=torch.long, device=device)  # (B,)
        self._rows = torch.arange(self.n_rows, device=device)  # (B,)

    def fill_row(self, row: int, source: KVCache, source_row: int = 0) -> None:
        """Copy one row of another cache (a prompt's prefill) over `row`; what `row` held is forgotten.

        `row` may be `n_rows`, the first unused one, which is then in use.
        """
        if not 0 <= row <= min(self.n_rows, self.keys.shape[1] - 1):
            raise InputError(f"{row=} is neither in use nor the next of {self.keys.shape[1]} rows")
        length = source.lengths[source_row]
        if length > self.capacity:
            raise InputError(f"a row of {length} tokens does not fit a cache of {self.capacity}")
        self.keys[:, row, :, :length] = source.keys[:, source_row, :, :length]
        self.values[:, row, :, :length] = source.values[:, source_row, :, :length]
        self._lengths[row] = length
        self.n_rows = max(self.n_rows, row + 1)
        self._set_view()

    def drop_rows(self, rows: Sequence[int]) -> list[int]:
        """Take rows out of use and close the gaps with the last ones, in place.

        Returns:
            For each row in use afterwards, the number it had before.
        """
        gone = set(rows)
        order = [row for row in range(self.n_rows) if row not in gone]
        kept = len(order)
        holes = [row for row in range(kept) if row in gone]
        movers = [row for row in order if row >= kept]
        for hole, mover in zip(holes, movers, strict=True):
            length = self._lengths[mover]
            self.keys[:, hole, :, :length] = self.keys[:, mover, :, :length]
            self.values[:, hole, :, :length] = self.values[:, mover, :, :length]
            self._lengths[hole] = length
        sources = list(range(kept))
        for hole, mover in zip(holes, movers, strict=True):
            sources[hole] = mover
        self.n_rows = kept
        self._set_view()
        return sources

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Use `len(lengths)` rows and keep so many tokens of each; padding behind them is forgotten."""
        if len(lengths) > self.keys.shape[1] or max(lengths, default=0) > self.capacity:
            raise InputError(f"{lengths=} do not fit {self.keys.shape[1]} rows of {self.capacity} tokens")
        self.n_rows = len(lengths)
        self._lengths[: self.n_rows] = lengths
        self._set_view()

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` tokens in each row; what is cached is kept. Never shrinks."""
        if capacity <= self.capacity:
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros((*old.shape[:3], capacity, old.shape[4]))
            new[:, : self.n_rows, :, : self._longest] = old[:, : self.n_rows, :, : self._longest]
            setattr(self, name, new)
        self.capacity = capacity

    def positions(self, n_tokens: int) -> Tensor:
        """Positions of the next `n_tokens` tokens of each row, (B, T)."""
        return self._starts[:, None] + torch.arange(n_tokens, device=self._starts.device)

    def mask(self, n_tokens: int) -> Tensor | None:
        """Columns that the next tokens may attend to, bool (B, 1, T, W); None where the kernel needs none."""
        if self._longest == 0 or (n_tokens == 1 and self._even):
            return None
        columns = torch.arange(self._longest + n_tokens, device=self._starts.device)  # (W,)
        return columns <= self.positions(n_tokens)[:, None, :, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (B, H, T, D) of a layer behind each row; all of them, (B, H, W, D) each."""
        n_tokens = keys.shape[2]
        stop = self._longest + n_tokens
        all_keys, all_values = self.keys[layer, : self.n_rows], self.values[layer, : self.n_rows]
        if self._even:
            all_keys[:, :, self._longest : stop] = keys
            all_values[:, :, self._longest : stop] = values
        elif n_tokens == 1:
            all_keys[self._rows, :, self._starts] = keys[:, :, 0]
            all_values[self._rows, :, self._starts] = values[:, :, 0]
        else:
            columns = self.positions(n_tokens)  # (B, T)
            all_keys[self._rows[:, None], :, columns] = keys.transpose(1, 2)
            all_values[self._rows[:, None], :, columns] = values.transpose(1, 2)
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def put(self, layer: int, rows: Tensor, columns: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write keys and values (N, H, D) of a layer at these rows and columns, (N) each."""
        self.keys[layer][rows, :, columns] = keys
        self.values[layer][rows, :, columns] = values

    def seen(self, layer: int, rows: Tensor | slice, width: int) -> tuple[Tensor, Tensor]:
        """The first columns of keys and values (B, H, width, D) of some rows; of a slice, no copy."""
        return self.keys[layer, rows, :, :width], self.values[layer, rows, :, :width]

    def advance(self, n_tokens: int) -> None:
        """Count `n_tokens` more in each row in use; called once a forward pass, after the last layer."""
        for row in range(self.n_rows):
            self._lengths[row] += n_tokens
        self._longest += n_tokens
        self._starts += n_tokens


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
