"""Products with the weights of a network, in bfloat16 on a CPU by oneDNN's packed form.

Packed weights are 1.2 to 1.8 times as fast for up to 200 tokens, with GELU at no cost. oneDNN builds a kernel
for each number of tokens, which takes three to nine times as long as to use it, so tokens are padded to few
sizes.

Letters of shapes: N tokens, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from crystallm.network.transformer import MLP

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    Function = Callable[[Tensor], Tensor]

_PACKED_TOKENS = 64  # number of tokens for which weights are packed


@dataclass(frozen=True)
class BlockProducts:
    """Functions of (N, C) that make up a block of the network."""

    ln_1: nn.Module
    c_attn: Function
    c_proj: Function
    ln_2: nn.Module
    wide: Function
    activate: Function
    narrow: Function

    @classmethod
    def of(cls, block: Any, linear: Callable[..., Function], *, fused: bool) -> BlockProducts:
        """Return the functions of a block of the network; fused: GELU is part of a product."""
        gelu = fused and isinstance(block.mlp, MLP)
        return cls(
            block.ln_1,
            linear(block.attn.c_attn),
            linear(block.attn.c_proj),
            block.ln_2,
            linear(block.mlp.c_fc, *(("gelu", "tanh") if gelu else ())),
            (lambda x: x) if gelu else block.mlp.activate,
            linear(block.mlp.c_proj),
        )


def padded_size(n_tokens: int) -> int:
    """Round a number of tokens up to a size that has a kernel: products work in steps of 16 rows."""
    if n_tokens <= 8:
        return 1 << (n_tokens - 1).bit_length()
    step = 16 if n_tokens <= 256 else 64 if n_tokens <= 1024 else 256
    return -(-n_tokens // step) * step


def pad(x: Tensor, n: int) -> Tensor:
    """Pad a stream (N, C) with zeros to (n, C)."""
    return x if len(x) == n else functional.pad(x, (0, 0, 0, n - len(x)))


def plain_linear(layer: nn.Linear) -> Function:
    """Return a linear layer as it is."""
    weight, bias = layer.weight, layer.bias
    return lambda x: functional.linear(x, weight, bias)


def packed_linear(layer: nn.Linear, activation: str = "none", algorithm: str = "") -> Function:
    """Return a linear layer with packed weights, followed by an activation that oneDNN knows."""
    weight = _onednn("_reorder_linear_weight")(layer.weight.detach().contiguous(), _PACKED_TOKENS)
    bias = layer.bias
    product = _onednn("_linear_pointwise")
    return lambda x: product(x, weight, bias, activation, [], algorithm)


def _onednn(name: str) -> Any:
    """Return an operator through which torch's compiler calls oneDNN; it has no public name."""
    return getattr(torch.ops.mkldnn, name)


@cache
def can_pack() -> bool:
    """Return whether torch and this processor have products of packed bfloat16 weights."""
    try:
        ones = torch.ones(2, 64, dtype=torch.bfloat16)
        weight = _onednn("_reorder_linear_weight")(torch.ones(64, 64, dtype=torch.bfloat16), 2)
        out = _onednn("_linear_pointwise")(ones, weight, None, "gelu", [], "tanh")
    except (AttributeError, RuntimeError):
        return False
    return bool((out == 64).all())
