"""Recipe: all options of a training run but its data; its schedule; the bundled recipes.

Recipe, data and seed determine the weights. Imports options only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from crystallm.datasets.options import PrepareOptions
from crystallm.network.config import ModelConfig
from crystallm.options import CommonOptions, Flag, Options, same

BUDGET = ("max_tokens", "max_updates", "max_minutes")
"""Lengths of the schedule, of which a recipe gives one."""

ARCHITECTURE = ("form", "n_layer", "n_head", "n_embd", "bias", "context")
"""Fields that describe the network. They must equal those of the model in `init_from`."""

FINE_TUNING = {
    "learning_rate": 3e-4, "warmup": 100, "patience": 5, "final_learning_rate_fraction": 0.01,
}  # fmt: skip
"""Defaults of `crystallm train --init-from`: the learning rate of a new network would destroy what the
weights have learned (dev/LOG.md: from 83.1 to 90.7 nats a crystal at 1.5e-3)."""

OLD_NAMES = {
    "windows": "packing",
    "rare": "rare_group_exponent",
    "mix": "replay_dataset",
    "mix_share": "replay_share",
    "equivalents": "augmentation_share",
    "accumulate": "gradient_accumulation",
    "final_rate": "final_learning_rate_fraction",
    "clip": "gradient_clip",
    "light": "low_weight",
    "tokens": "max_tokens",
    "updates": "max_updates",
    "minutes": "max_minutes",
    "spike": "max_loss_jump",
}
"""Former names of fields, in recipes and runs written before version 0.2."""

REMOVED = {"ema": None, "soft_numbers": 0.0}
"""Fields that no longer exist, with the value at which they had no effect."""
_RECIPES = Path(__file__).parent / "recipes"


class TrainFiles(Options):
    """The data set and the folder of a training run."""

    dataset: Path | None = None
    """Folder of the data set, made by `crystallm prepare`."""
    out: Path | None = same(
        CommonOptions, "out", description="Folder for the run: weights, state, metrics.jsonl."
    )
    resume: bool = False
    """Resume the run in --out."""


class RecipeOptions(Options):
    """The fields of a recipe, of which some may be given; see `Recipe`."""

    language: str | None = same(
        PrepareOptions,
        "language",
        default=None,
        description="Language that the data set must have; None: any.",
    )
    form: Literal["gpt2", "llama"] = same(ModelConfig, "form")
    n_layer: int = same(ModelConfig, "n_layer")
    n_head: int = same(ModelConfig, "n_head", description="Attention heads of a block.")
    n_embd: int = same(ModelConfig, "n_embd", description="Width of the network.")
    bias: Annotated[bool, Flag(negative=True)] = same(
        ModelConfig, "bias", description="Whether linear layers and layer norms have biases."
    )
    context: int = same(
        ModelConfig,
        "context",
        ge=2,
        description="Maximum number of tokens; longer crystals are left out of packed windows.",
    )
    dropout: float = same(ModelConfig, "dropout", default=0.1)
    packing: Literal["packed", "starts", "random"] = "packed"
    """Windows of tokens: whole crystals side by side that do not attend to each other; or `context` tokens of
    the stream, from the start of a crystal, or from anywhere (as in the original)."""
    rare_group_exponent: float = Field(default=0.0, ge=0.0)
    """Draw crystals of a space group that n of N have with weight (N / n)^exponent; 0: each once an epoch."""
    replay_dataset: str | None = None
    """Data set folder of which some crystals are drawn too, against forgetting; None: no other."""
    replay_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Fraction of an epoch's crystals (windows, if random) drawn from `replay_dataset`."""
    augmentation_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the schedule in which crystals are drawn in any of their equivalent descriptions (the split
    `equivalents` of the data set), then in the canonical one only. Decided at the start of each epoch."""
    condition: Annotated[tuple[str, ...], Flag(several=True)] = ()
    """Properties of the data set that the network can be given in generation, such as density,band_gap."""
    condition_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    """Fraction of the crystals whose values are all hidden from the network; of the others' values, the same
    fraction is. Generation then takes any of the properties, and --guidance works."""
    relatives_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the crystals before which the network reads their known relatives (see crystallm references
    relatives); 0: a network that reads none."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Tokens of a micro-batch, padding included; a longer window makes a micro-batch of its own."""
    gradient_accumulation: int = Field(default=1, ge=1)
    """Micro-batches of an update on each process."""
    learning_rate: float = Field(default=1e-3, gt=0.0)
    """Maximum learning rate, reached after `warmup` updates."""
    final_learning_rate_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    """Learning rate at the end as a fraction of the maximum."""
    warmup: int = Field(default=100, ge=0)
    """Updates over which the learning rate rises from 0."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW; or Muon for the matrices of the blocks, its steps scaled to the size of AdamW's, and AdamW for
    embeddings and vectors. Muon needs torch 2.9 or newer."""
    weight_decay: float = Field(default=0.1, ge=0.0)
    """Weight decay of matrices; vectors are not decayed."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """AdamW's first decay rate."""
    beta2: float = Field(default=0.99, ge=0.0, lt=1.0)
    """AdamW's second decay rate."""
    gradient_clip: float = Field(default=1.0, gt=0.0)
    """Maximum norm of the gradient."""
    low_weight: float = Field(default=1.0, ge=0.0)
    """Weight in the loss of tokens that a prompt or the grammar gives, and of last digits, which are close to
    random; all others have weight 1. Reported losses are not weighted."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Length of the schedule in tokens; give this, `max_updates` or `max_minutes`."""
    max_updates: int | None = Field(default=None, ge=1)
    """Length of the schedule in updates."""
    max_minutes: float | None = Field(default=None, gt=0.0)
    """Length of the schedule in minutes of training."""
    validate_every: float = Field(default=0.05, gt=0.0, le=1.0)
    """Fraction of the schedule between validations, each of which saves a checkpoint."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after n validations in a row without a new lowest loss; None: never."""
    max_loss_jump: float | None = Field(default=2.0, gt=0.0)
    """Stop if a training loss exceeds the mean of the last updates by this many nats a token; None: never."""
    seed: int = same(
        CommonOptions,
        "seed",
        lt=2**63,
        description="Seed of the initial weights, the order of crystals and dropout.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = same(
        CommonOptions,
        "dtype",
        description="Arithmetic of the forward pass; `auto` is bfloat16, or float16 on a GPU without it. "
        "Weights and optimizer are float32.",
    )
    compile: Annotated[bool, Flag(negative=True)] = False
    """Compile the blocks of the network with torch.compile, a minute or two at the start: updates then take
    two thirds of the time on a CPU (dev/LOG.md). Needs a C++ compiler."""
    init_from: str | None = None
    """Bundled name, folder or `ckpt.pt` of initial weights; None: random weights."""


class Recipe(RecipeOptions):
    """Options of a training run. Frozen; rejects unknown names; saved beside the weights."""

    @field_validator("condition", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        texts = (value,) if isinstance(value, str) else value
        return tuple(name.strip() for text in texts for name in str(text).split(",") if name.strip())

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        given = [name for name in BUDGET if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of {', '.join(BUDGET)}, the length of the schedule, not "
                f"{' and '.join(given) or 'none'}"
            )
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        if self.condition and self.packing != "packed":
            raise ValueError(
                f"condition={','.join(self.condition)} needs packing packed: {self.packing!r} windows hold "
                "parts of crystals, whose values are not known"
            )
        if len(set(self.condition)) < len(self.condition):
            raise ValueError(f"condition={','.join(self.condition)} names a property twice")
        if self.rare_group_exponent and self.packing == "random":
            raise ValueError(
                f"rare_group_exponent={self.rare_group_exponent} weights crystals, but random windows start "
                "anywhere: take packing packed or starts"
            )
        self._check_relatives()
        if not (share := self.augmentation_share):
            return self
        if self.max_tokens is None:
            raise ValueError(
                f"augmentation_share={share} needs a schedule in tokens: give max_tokens, or "
                "augmentation_share = 0"
            )
        if self.packing != "packed":
            raise ValueError(
                f"augmentation_share={share} needs packing packed: in {self.packing!r} windows a crystal "
                "would attend to another description of itself"
            )
        if self.replay_dataset is not None:
            raise ValueError(f"augmentation_share={share} and replay_dataset exclude each other")
        return self

    def _check_relatives(self) -> None:
        if not self.relatives_share:
            return
        given = f"relatives_share={self.relatives_share}"
        if self.packing != "packed":
            raise ValueError(f"{given} needs packing packed: {self.packing!r} windows hold parts of crystals")
        for name in ("augmentation_share", "replay_dataset", "condition"):
            if getattr(self, name):
                raise ValueError(f"{given} and {name} exclude each other")


def renamed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a recipe with former names replaced, and removed fields without effect dropped."""
    return {
        OLD_NAMES.get(name, name): value
        for name, value in fields.items()
        if not (name in REMOVED and value == REMOVED[name])
    }


def learning_rate(recipe: Recipe, update: int, share: float) -> float:
    """Return the learning rate: linear warm-up, then half a cosine down to the final fraction.

    Args:
        update: number of the update, from 0.
        share: fraction of the schedule that is done.
    """
    warmup = min(1.0, (update + 1) / recipe.warmup) if recipe.warmup else 1.0
    final = recipe.final_learning_rate_fraction
    decay = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return recipe.learning_rate * warmup * decay


def next_validation(recipe: Recipe, share: float) -> float:
    """Return the share of the schedule of the next validation: a multiple of `validate_every`, or 1.

    Less 1e-9, since shares are rounded: 3/20 is below three times 0.05.
    """
    done = math.floor(share / recipe.validate_every + 1e-9)
    return min(1.0, (done + 1) * recipe.validate_every) - 1e-9


def bundled() -> dict[str, Path]:
    """Return the bundled recipes: YAML files by name, sorted."""
    return {path.stem: path for path in sorted(_RECIPES.glob("*.yaml"), key=lambda path: path.stem)}
