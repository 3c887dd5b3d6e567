"""ModelConfig: the shape of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from crystallm.options import Options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]

LAYER_NORM_EPS = 1e-5
ROTARY_BASE = 10000.0  # base of the rotary frequencies (arXiv:2104.09864)
INIT_STD = 0.02  # GPT-2's
MAX_LAYERS, MAX_WIDTH, MAX_CONTEXT = 1_000, 65_536, 2**20
MAX_WEIGHTS = 10**10
"""Bounds of networks that are built, far above any that is trained here."""


@dataclass(frozen=True)
class ConditionScale:
    """A property that the network can be given, and its values in the training data.

    Attributes:
        name: of the property.
        unit: of its values; "" if it is not known.
        mean: of the values.
        deviation: standard deviation of the values, above 0.
        lowest: smallest value.
        highest: largest value.
    """

    name: str
    unit: str
    mean: float
    deviation: float
    lowest: float
    highest: float


class ModelConfig(Options):
    """Shape of a network. Frozen; rejects unknown keys; saved as JSON beside the weights."""

    language: Annotated[str, Field(min_length=1)]
    """Name of the language of the tokens: `cif` or `orbits`."""
    form: Literal["gpt2", "llama"] = "gpt2"
    """GPT-2: learned positions, LayerNorm, GELU; or Llama: rotary positions, RMSNorm, SwiGLU, no biases."""
    vocab_size: int = Field(ge=1, le=65536)
    """Vocabulary size V, at most 65,536: token streams on disk are uint16."""
    context: int = Field(default=1024, ge=1, le=MAX_CONTEXT)
    """Maximum number of tokens of a window; the number of position embeddings, if learned."""
    n_layer: int = Field(default=8, ge=1, le=MAX_LAYERS)
    """Number of transformer blocks."""
    n_head: int = Field(default=8, ge=1, le=MAX_WIDTH)
    """Attention heads H of a block; they share the width evenly."""
    n_embd: int = Field(default=512, ge=1, le=MAX_WIDTH)
    """Width C of the residual stream."""
    bias: bool = False
    """Whether linear layers and layer norms have an additive bias."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Fraction of activations dropped in training."""
    condition_scales: tuple[ConditionScale, ...] = ()
    """Properties that the network can be given, see `network.conditions`; a model without has none."""
    n_relatives: int = Field(default=0, ge=0, le=100)
    """Number of known relatives, at most, that the network reads before a crystal; 0: none."""

    @model_validator(mode="after")
    def _heads_share_width(self) -> ModelConfig:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        weights = self.n_embd * (12 * self.n_layer * self.n_embd + self.vocab_size + self.context)
        if weights > MAX_WEIGHTS:
            raise ValueError(
                f"n_layer={self.n_layer}, n_embd={self.n_embd}: about {weights:.0e} weights, at most "
                f"{MAX_WEIGHTS:.0e} are built"
            )
        if self.form == "llama" and (self.bias or self.head_dim % 2):
            raise ValueError(
                f"the form llama has no biases and an even width of heads: bias={self.bias}, "
                f"n_embd={self.n_embd}, n_head={self.n_head}"
            )
        return self

    @model_validator(mode="after")
    def _scales_are_usable(self) -> ModelConfig:
        names = [scale.name for scale in self.condition_scales]
        if len(set(names)) < len(names):
            raise ValueError(f"condition_scales name a property twice: {', '.join(names)}")
        for scale in self.condition_scales:
            if not (math.isfinite(scale.mean) and math.isfinite(scale.deviation) and scale.deviation > 0):
                raise ValueError(
                    f"the condition {scale.name!r} has mean {scale.mean} and deviation {scale.deviation}: "
                    "both are numbers, and the deviation is above 0"
                )
        return self

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the properties that the network can be given."""
        return tuple(scale.name for scale in self.condition_scales)

    def content(self) -> dict[str, Any]:
        """Return the fields as they are stored, without those of conditions and relatives that it lacks."""
        unused = {name for name in ("condition_scales", "n_relatives") if not getattr(self, name)}
        return self.model_dump(exclude=unused)

    @property
    def head_dim(self) -> int:
        """Width D of one head."""
        return self.n_embd // self.n_head
