"""The training loop: packed whole crystals, AdamW, warm-up and cosine, resumable to the bit on one device.

A run folder holds `recipe.json` (the configuration), `metrics.jsonl` (a line at every validation),
`state.safetensors` (weights, optimizer, generator, place in the data; written atomically), and `model/` (the
weights with the lowest validation loss, as `checkpoint` saves them).

Needs torch and numpy; knows tokens and losses, not crystals.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional

from crystallm import checkpoint, dataset
from crystallm.errors import CheckpointError, CrystallmError, InputError
from crystallm.model import GPT, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

RECIPE, METRICS, STATE, MODEL = "recipe.json", "metrics.jsonl", "state.safetensors", "model"


class Recipe(BaseModel):
    """How a network is trained. Frozen; refuses unknown keys; saved beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    n_layer: int = Field(default=8, ge=1)
    """Transformer blocks."""
    n_head: int = Field(default=8, ge=1)
    """Attention heads of a block."""
    n_embd: int = Field(default=512, ge=1)
    """Width of the network."""
    bias: bool = False
    """Whether linear layers and layer norms have biases."""
    context: int = Field(default=1024, ge=2)
    """Largest number of tokens; longer crystals are left out."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of activations dropped while training."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Tokens of an update, padding included."""
    learning_rate: float = Field(default=1e-3, gt=0.0)
    """Highest rate, reached after `warmup` updates."""
    final_rate: float = Field(default=0.1, ge=0.0, le=1.0)
    """Rate at the end as a share of the highest."""
    warmup: int = Field(default=100, ge=0)
    """Updates over which the rate rises from 0."""
    weight_decay: float = Field(default=0.1, ge=0.0)
    """Of matrices; vectors are not decayed."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """AdamW's first decay rate."""
    beta2: float = Field(default=0.99, ge=0.0, lt=1.0)
    """AdamW's second decay rate."""
    clip: float = Field(default=1.0, gt=0.0)
    """Largest norm of a gradient."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Length of the schedule in minutes of training; either this or `updates`."""
    updates: int | None = Field(default=None, ge=1)
    """Length of the schedule in updates."""
    validate_every: float = Field(default=0.05, gt=0.0, le=1.0)
    """Share of the schedule between two validations, each of which writes a checkpoint."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights, the order of crystals and dropout."""
    dtype: str = Field(default="auto", pattern="^(auto|bfloat16|float32)$")
    """Arithmetic of the forward pass; `auto` is bfloat16. Weights and optimizer are float32."""

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if (self.minutes is None) == (self.updates is None):
            raise ValueError("give either minutes or updates, the length of the schedule")
        return self


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        share: of the schedule, 0 to 1.
        update: optimizer steps done.
        epoch, batch: place in the data.
        seconds: of training, validation not counted.
        tokens: trained on so far.
        loss: mean of the training loss since the last report, nats a token.
        best: lowest validation loss so far, nats a crystal.
    """

    share: float = 0.0
    update: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss: float = math.inf
    best: float = math.inf


@dataclass(frozen=True)
class Losses:
    """Validation losses in nats: a token, and a whole crystal (comparable between encodings)."""

    token: float
    crystal: float


def rate(recipe: Recipe, update: int, share: float) -> float:
    """Learning rate: linear warm-up, then half a cosine down to `final_rate` of the highest."""
    warm = min(1.0, (update + 1) / recipe.warmup) if recipe.warmup else 1.0
    fall = recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return recipe.learning_rate * warm * fall


def _tensors(batch: dataset.Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays = (batch.ids, batch.targets, batch.positions, batch.segments)
    ids, targets, positions, segments = (torch.from_numpy(a) for a in arrays)
    if device.type == "cuda":
        ids, targets, positions, segments = (
            t.pin_memory().to(device, non_blocking=True) for t in (ids, targets, positions, segments)
        )
    return ids, targets, positions, segments


def _autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, torch.bfloat16)


def summed_loss(network: GPT, batch: dataset.Batch, device: torch.device, dtype: str) -> tuple[Tensor, int]:
    """Sum of the losses of a batch (nats), and the number of tokens predicted."""
    ids, targets, positions, segments = _tensors(batch, device)
    with _autocast(device, dtype):
        features = network.features(ids, positions=positions, segments=segments)  # (B, T, C)
        taught = (targets != dataset.IGNORE).flatten().nonzero().squeeze(1)
        logits = network.lm_head(features.flatten(0, 1)[taught])  # (n, V)
    return functional.cross_entropy(logits.float(), targets.flatten()[taught], reduction="sum"), len(taught)


@torch.no_grad()
def validate(network: GPT, split: dataset.Split, device: torch.device, dtype: str = "auto") -> Losses:
    """Losses over a whole split, without dropout."""
    was_training = network.training
    network.eval()
    total, n_tokens, context = 0.0, 0, network.config.context
    for batch in dataset.batches(split, batch_tokens=16384, context=context, seed=0, epoch=0, shuffle=False):
        loss, n = summed_loss(network, batch, device, dtype)
        total, n_tokens = total + float(loss), n_tokens + n
    network.train(was_training)
    n_crystals = int((split.lengths <= context).sum())
    return Losses(total / max(1, n_tokens), total / max(1, n_crystals))


def _optimizer(network: GPT, recipe: Recipe) -> torch.optim.AdamW:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, fused=True)


# ------------------------------------------------------------------------------------------------- state


def _save_state(folder: Path, network: GPT, optimizer: torch.optim.AdamW, progress: Progress) -> None:
    from safetensors.torch import save_file

    tensors = {"rng": torch.get_rng_state()}
    for name, parameter in network.named_parameters():
        tensors[f"weights.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.detach()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    place = folder / f".{STATE}.new"
    try:
        save_file(tensors, str(place), metadata={"progress": json.dumps(vars(progress))})
        with place.open("rb") as handle:
            os.fsync(handle.fileno())
        place.replace(folder / STATE)
    except OSError as error:
        place.unlink(missing_ok=True)
        raise CrystallmError(f"cannot write {str(folder / STATE)!r}: {error.strerror or error}") from error


def _load_state(folder: Path, network: GPT, optimizer: torch.optim.AdamW, device: torch.device) -> Progress:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(folder / STATE), framework="pt") as stored:
            progress = Progress(**json.loads(stored.metadata()["progress"]))
            names = set(stored.keys())
            for name, parameter in network.named_parameters():
                parameter.data.copy_(stored.get_tensor(f"weights.{name}"))
                keys = [
                    key for key in ("step", "exp_avg", "exp_avg_sq") if f"optimizer.{key}.{name}" in names
                ]
                state = {key: stored.get_tensor(f"optimizer.{key}.{name}") for key in keys}
                optimizer.state[parameter] = {k: v.to(device) for k, v in state.items()}
            torch.set_rng_state(stored.get_tensor("rng"))
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{str(folder / STATE)!r} does not hold the state of this run ({error})"
        ) from error
    return progress


def _log(folder: Path, line: dict[str, Any], *, keep_until: int | None = None) -> None:
    """Append a line of metrics; with `keep_until`, first drop lines of later updates (after a kill)."""
    path = folder / METRICS
    if keep_until is not None and path.exists():
        kept = [row for row in path.read_text().splitlines() if json.loads(row)["update"] <= keep_until]
        path.write_text("".join(row + "\n" for row in kept))
    if line:
        with path.open("a") as handle:
            handle.write(json.dumps(line) + "\n")


# -------------------------------------------------------------------------------------------------- loop


def _places(
    split: dataset.Split, recipe: Recipe, progress: Progress
) -> Iterator[tuple[int, int, dataset.Batch]]:
    """Batches without end from a place in the data on, each with its own place."""
    epoch, skip = progress.epoch, progress.batch
    while True:
        one_pass = dataset.batches(
            split, batch_tokens=recipe.batch_tokens, context=recipe.context, seed=recipe.seed, epoch=epoch
        )
        for number, batch in enumerate(one_pass):
            if number >= skip:
                yield epoch, number, batch
        epoch, skip = epoch + 1, 0


@dataclass
class _Run:
    """What the loop works on."""

    recipe: Recipe
    network: GPT
    optimizer: torch.optim.AdamW
    split: dataset.Split
    held_out: dataset.Split
    folder: Path
    device: torch.device
    progress: Progress


def train(
    recipe: Recipe,
    data: str | Path,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    report: Callable[[Progress, Losses | None], None] | None = None,
) -> Progress:
    """Train a network, or go on with a run that was interrupted.

    Args:
        recipe: model and schedule; ignored on resume, where the folder's own counts.
        data: data set folder with the splits `train` and `val`.
        folder: run folder; new, unless `resume`.
        resume: go on from the last checkpoint in `folder`.
        device: 'cpu', 'cuda', or 'auto'.
        report: called after each update (losses None) and each validation.

    Raises:
        InputError: no data, a folder that is taken, nothing to resume.
        CrystallmError: the loss is no number (the last good checkpoint stays), or the folder cannot be
        written.
    """
    place = Path(folder)
    split, held_out = dataset.load(data, "train"), dataset.load(data, "val")
    if resume:
        if not (place / STATE).is_file():
            raise InputError(f"nothing to resume in {str(place)!r}: it holds no {STATE}")
        recipe = Recipe.model_validate_json((place / RECIPE).read_text())
    elif (place / RECIPE).exists():
        raise InputError(f"{str(place)!r} holds a run already: resume it, or give a new folder")
    if not (split.lengths <= recipe.context).any():
        raise InputError(f"no crystal of {str(data)!r} fits a context of {recipe.context} tokens")
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    torch.manual_seed(recipe.seed)
    config = ModelConfig(
        language=split.language,
        vocab_size=split.vocab_size,
        **recipe.model_dump(include={"n_layer", "n_head", "n_embd", "bias", "context", "dropout"}),
    )
    network = GPT(config).to(where).train()
    optimizer = _optimizer(network, recipe)
    if resume:
        progress = _load_state(place, network, optimizer, where)
        _log(place, {}, keep_until=progress.update)
    else:
        progress = Progress()
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / RECIPE).write_text(recipe.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise CrystallmError(f"cannot write {str(place)!r}: {error.strerror or error}") from error
    return _loop(_Run(recipe, network, optimizer, split, held_out, place, where, progress), report)


def _loop(run: _Run, report: Callable[[Progress, Losses | None], None] | None) -> Progress:
    recipe, network, optimizer, device = run.recipe, run.network, run.optimizer, run.device
    progress = run.progress
    losses: list[float] = []
    next_validation = progress.share + recipe.validate_every
    started = time.monotonic() - progress.seconds
    for epoch, number, batch in _places(run.split, recipe, progress):
        if progress.share >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, progress.update, progress.share)
        total, n = summed_loss(network, batch, device, recipe.dtype)
        loss = total / n
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise CrystallmError(
                f"the loss is {losses[-1]} at update {progress.update}; the last good state is in "
                f"{str(run.folder / STATE)!r}: resume it with a lower learning rate"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update, seconds = progress.update + 1, time.monotonic() - started
        share = update / recipe.updates if recipe.updates else seconds / (60 * (recipe.minutes or 1))
        progress = replace(
            progress,
            share=min(share, 1.0),
            update=update,
            epoch=epoch,
            batch=number + 1,
            seconds=seconds,
            tokens=progress.tokens + batch.n_tokens,
            loss=sum(losses[-50:]) / len(losses[-50:]),
        )
        found = None
        if progress.share >= min(next_validation, 1.0):
            found = validate(network, run.held_out, device, recipe.dtype)
            progress = _record(run, progress, found)
            next_validation = progress.share + recipe.validate_every
            started = time.monotonic() - progress.seconds  # validation does not count
        if report:
            report(progress, found)
    return progress


def _record(run: _Run, progress: Progress, found: Losses) -> Progress:
    """Write metrics and state, and the model if it is the best so far."""
    better = found.crystal < progress.best
    progress = replace(progress, best=min(progress.best, found.crystal))
    line = {
        "update": progress.update,
        "share": round(progress.share, 4),
        "epoch": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "tokens": progress.tokens,
        "train_loss": round(progress.loss, 5),
        "val_loss": round(found.token, 5),
        "val_loss_crystal": round(found.crystal, 4),
        "learning_rate": rate(run.recipe, progress.update, progress.share),
    }
    _log(run.folder, line)
    _save_state(run.folder, run.network, run.optimizer, progress)
    if better:
        checkpoint.save(run.network, run.folder / MODEL)
    return progress
