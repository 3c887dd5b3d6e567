"""How a network is trained: the recipe, its schedule, and the recipes that the package brings along.

A recipe says all that a run needs beside its data, so that recipe, data and seed give the same weights again.
Knows numbers and names, not networks; needs pydantic alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BUDGET = ("tokens", "updates", "minutes")

FORM = ("form", "n_layer", "n_head", "n_embd", "bias", "context")
"""What of a recipe describes the network, and must be the model's where weights are taken from one."""

FURTHER = {"learning_rate": 3e-4, "warmup": 100, "patience": 5, "final_rate": 0.01}
"""What `crystallm train --init-from` takes in place of the defaults below: a rate as high as a fresh network
needs would undo what the weights know (dev/LOG.md: from 83.1 to 90.7 nats a crystal at 1.5e-3)."""

_RECIPES = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    """How a network is trained. Frozen; refuses unknown keys; saved beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    language: str | None = None
    """Language of the data set that the recipe is for; None: any."""
    form: Literal["gpt2", "llama"] = "gpt2"
    """GPT-2: learned positions, LayerNorm, GELU; or Llama: rotary positions, RMSNorm, SwiGLU, no biases."""
    n_layer: int = Field(default=8, ge=1)
    """Transformer blocks."""
    n_head: int = Field(default=8, ge=1)
    """Attention heads of a block."""
    n_embd: int = Field(default=512, ge=1)
    """Width of the network."""
    bias: bool = False
    """Whether linear layers and layer norms have biases."""
    context: int = Field(default=1024, ge=2)
    """Largest number of tokens; whole crystals that are longer are left out."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of activations dropped while training."""
    windows: Literal["packed", "starts", "random"] = "packed"
    """What the network sees: whole crystals side by side that do not see each other; or `context` tokens of
    the stream, from where a crystal starts, or from anywhere (the original's)."""
    rare: float = Field(default=0.0, ge=0.0)
    """Crystals of a space group that n of N have are drawn with weight (N / n)^rare; 0: all once an epoch."""
    mix: str | None = None
    """Data set folder of which some crystals are drawn too, against forgetting; None: no other."""
    mix_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of an epoch's crystals (windows, where these are random) that is drawn from `mix`."""
    equivalents: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the schedule in which each crystal is drawn in any of its equivalent descriptions, which the
    data set holds as the split `equivalents`; in the rest, in its canonical one. An epoch is told in one way
    or the other as its beginning says."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Tokens of a micro-batch, padding included; a window that is longer makes a micro-batch of its own."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of an update on each process."""
    learning_rate: float = Field(default=1e-3, gt=0.0)
    """Highest rate, reached after `warmup` updates."""
    final_rate: float = Field(default=0.1, ge=0.0, le=1.0)
    """Rate at the end as a share of the highest."""
    warmup: int = Field(default=100, ge=0)
    """Updates over which the rate rises from 0."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW; or Muon for the matrices of the blocks, its steps scaled to the size of AdamW's, and AdamW for
    embeddings and vectors."""
    weight_decay: float = Field(default=0.1, ge=0.0)
    """Of matrices; vectors are not decayed."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """AdamW's first decay rate."""
    beta2: float = Field(default=0.99, ge=0.0, lt=1.0)
    """AdamW's second decay rate."""
    clip: float = Field(default=1.0, gt=0.0)
    """Largest norm of a gradient."""
    light: float = Field(default=1.0, ge=0.0)
    """Weight of the losses of tokens that a prompt or the rules give, and of last digits, which are close to
    chance; all others weigh 1. Losses are told as they are."""
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay an update of averaged weights, which are then validated and saved; None: no average."""
    tokens: int | None = Field(default=None, ge=1)
    """Length of the schedule in tokens; either this, `updates` or `minutes`."""
    updates: int | None = Field(default=None, ge=1)
    """Length of the schedule in updates."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Length of the schedule in minutes of training."""
    validate_every: float = Field(default=0.05, gt=0.0, le=1.0)
    """Share of the schedule between two validations, each of which writes a checkpoint."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many validations in a row that are no better than the best before; None: never."""
    spike: float | None = Field(default=2.0, gt=0.0)
    """Stop where a training loss is so many nats a token above the mean of the last updates; None: never."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights, the order of crystals and dropout."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Arithmetic of the forward pass; `auto` is bfloat16, or float16 on a GPU without. Weights and optimizer
    are float32."""
    compile: bool = False
    """Whether torch.compile builds kernels for the network: minutes at the start, a faster step after."""
    init_from: str | None = None
    """Bundled name, folder or `ckpt.pt` whose weights the network starts from; None: random ones."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        given = [name for name in BUDGET if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of tokens, updates and minutes, the length of the schedule, not "
                f"{' and '.join(given) or 'none'}"
            )
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        if self.rare and self.windows == "random":
            raise ValueError(
                f"rare={self.rare} weighs crystals, and random windows begin at none: take windows packed or "
                "starts"
            )
        if self.equivalents and self.tokens is None:
            raise ValueError(
                f"equivalents={self.equivalents} is a share of a schedule in tokens, by which an epoch knows "
                "how to tell its crystals: give tokens, or equivalents = 0"
            )
        if self.equivalents and self.windows != "packed":
            raise ValueError(
                f"equivalents={self.equivalents} goes with windows packed: in windows {self.windows!r} a "
                "crystal would stand beside itself, told otherwise"
            )
        if self.equivalents and self.mix is not None:
            raise ValueError(f"equivalents={self.equivalents} goes with no mix: leave one of them out")
        return self


def rate(recipe: Recipe, update: int, share: float) -> float:
    """Learning rate: linear warm-up, then half a cosine down to `final_rate` of the highest."""
    warm = min(1.0, (update + 1) / recipe.warmup) if recipe.warmup else 1.0
    fall = recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return recipe.learning_rate * warm * fall


def next_validation(recipe: Recipe, share: float) -> float:
    """Share of the schedule from which on to validate next: a multiple of `validate_every`, or the end.

    Less a hair, since shares are rounded: 3/20 is below three times 0.05.
    """
    done = math.floor(share / recipe.validate_every + 1e-9)
    return min(1.0, (done + 1) * recipe.validate_every) - 1e-9


def bundled() -> dict[str, Path]:
    """The recipes that the package brings along: YAML files by name, sorted."""
    return {path.stem: path for path in sorted(_RECIPES.glob("*.yaml"), key=lambda path: path.stem)}
