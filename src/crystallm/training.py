"""The training loop: packed whole crystals, AdamW, warm-up and cosine, resumable to the bit on one device.

A run folder holds `recipe.json` (the configuration), `metrics.jsonl` (a line at every validation),
`state.safetensors` (weights, optimizer, generators, place in the data), and `model/` (the weights with the
lowest validation loss, as `checkpoint` saves them). Each is written beside its place and moved into it, the
state last, so that a run killed at any moment goes on from its last validation as if it had never been.

Needs torch and numpy; knows tokens and losses, not crystals.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional

from crystallm import checkpoint, dataset, runs
from crystallm.errors import CheckpointError, CrystallmError, InputError
from crystallm.model import GPT, ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

RECIPE, METRICS, STATE, MODEL = "recipe.json", "metrics.jsonl", "state.safetensors", "model"
MEMORY = 50  # updates over which the training loss is averaged
OPTIMIZER_KEYS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of each parameter


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
    """Tokens of an update, padding included; a window that is longer makes an update of its own."""
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
    init_from: str | None = None
    """Bundled name, folder or `ckpt.pt` whose weights the network starts from; None: random ones."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if (self.minutes is None) == (self.updates is None):
            raise ValueError("give either minutes or updates, the length of the schedule")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
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
        loss: mean of the training loss over the last updates (MEMORY, and none before the last validation),
            nats a token.
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
    """Sum of the losses of a batch (nats), and the number of tokens predicted.

    Args:
        network: whose next-token losses are taken.
        batch: windows of packed crystals.
        device: of the network.
        dtype: `float32`, or bfloat16 arithmetic.
    """
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

    @property
    def data(self) -> dict[str, int]:
        """Counts that tell one training split from another."""
        return {"crystals": len(self.split), "tokens": int(self.split.starts[-1])}


def _generators(device: torch.device) -> dict[str, Tensor]:
    """States of the random generators that dropout draws from."""
    states = {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng_cuda"] = torch.cuda.get_rng_state(device)
    return states


def _save_state(run: _Run, progress: Progress) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = _generators(run.device)
    for name, parameter in run.network.named_parameters():
        tensors[f"weights.{name}"] = parameter.detach()
        for key, value in run.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.detach()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"progress": json.dumps(vars(progress)), "data": json.dumps(run.data)}
    place = run.folder / f".{STATE}.new"
    try:
        save_file(tensors, str(place), metadata=facts)
        with place.open("r+b") as handle:  # Windows syncs no file that is open for reading alone
            os.fsync(handle.fileno())
        place.replace(run.folder / STATE)
    except (OSError, SafetensorError) as error:
        raise CrystallmError(f"cannot write {str(run.folder / STATE)!r}: {error}") from error
    finally:
        place.unlink(missing_ok=True)


def _load_state(run: _Run) -> Progress:
    """Fill network, optimizer and generators with the state in the run's folder.

    Raises:
        CheckpointError: it is damaged, or the state of another network.
        InputError: it was trained on other data.
    """
    from safetensors import SafetensorError, safe_open

    path = run.folder / STATE
    try:
        with safe_open(str(path), framework="pt") as stored:
            facts = stored.metadata()
            progress = Progress(**json.loads(facts["progress"]))
            data = json.loads(facts.get("data", "null"))
            for name, parameter in run.network.named_parameters():
                _fill(parameter.data, stored.get_tensor(f"weights.{name}"), name)
                if not progress.update:
                    continue  # the optimizer has kept nothing yet
                state = {k: stored.get_tensor(f"optimizer.{k}.{name}") for k in OPTIMIZER_KEYS}
                run.optimizer.state[parameter] = {k: v.to(run.device) for k, v in state.items()}
            torch.set_rng_state(stored.get_tensor("rng"))
            if run.device.type == "cuda" and "rng_cuda" in stored.keys():  # noqa: SIM118 - no mapping
                torch.cuda.set_rng_state(stored.get_tensor("rng_cuda"), run.device)
    except (SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{str(path)!r} does not hold the state of this run ({why}): is it truncated?"
        ) from error
    if data not in (None, run.data):
        raise InputError(f"{str(path)!r} was trained on other data: {data}, not {run.data}")
    return progress


def _fill(parameter: Tensor, stored: Tensor, name: str) -> None:
    if stored.shape != parameter.shape:  # else a vector would be spread over a matrix
        raise ValueError(f"{name} has shape {tuple(stored.shape)}, the recipe says {tuple(parameter.shape)}")
    parameter.copy_(stored)


def _log(folder: Path, line: dict[str, Any]) -> None:
    """Append a line of metrics."""
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
    except OSError as error:
        raise CrystallmError(f"cannot write {str(folder / METRICS)!r}: {error.strerror or error}") from error


def _forget(folder: Path, update: int) -> None:
    """Drop what a killed run logged behind an update, half a line too."""
    path = folder / METRICS
    kept = []
    for row in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            if json.loads(row)["update"] <= update:
                kept.append(row + "\n")
        except ValueError:
            break
    runs.write_atomically(path, "".join(kept).encode())


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
        InputError: no data, no such device, a folder that is taken, nothing to resume, other data on resume.
        CheckpointError: the state to resume is damaged.
        CrystallmError: the loss is no number (the last good state stays), or the folder cannot be written.
    """
    place = Path(folder)
    split, held_out = dataset.load(data, "train"), dataset.load(data, "val")
    where = _device(device)
    if resume:
        if not (place / STATE).is_file():
            raise InputError(f"nothing to resume in {str(place)!r}: it holds no {STATE}")
        recipe = _read_recipe(place)
    elif any((place / name).exists() for name in (STATE, METRICS, MODEL)):
        raise InputError(f"{str(place)!r} holds a run already: resume it, or give a new folder")
    for name, part in (("train", split), ("val", held_out)):
        if not (part.lengths <= recipe.context).any():
            raise InputError(
                f"no crystal of the split {name!r} in {str(data)!r} fits a context of {recipe.context} tokens"
            )
    torch.manual_seed(recipe.seed)
    config = ModelConfig(
        language=split.language,
        vocab_size=split.vocab_size,
        **recipe.model_dump(include={"n_layer", "n_head", "n_embd", "bias", "context", "dropout"}),
    )
    network = GPT(config).to(where).train()
    if recipe.init_from is not None and not resume:
        _take_weights(network, recipe.init_from)
    run = _Run(recipe, network, _optimizer(network, recipe), split, held_out, place, where)
    if resume:
        progress = _load_state(run)
        _forget(place, progress.update)
    else:
        progress = Progress()
        runs.write_atomically(place / RECIPE, (recipe.model_dump_json(indent=2) + "\n").encode())
        _save_state(run, progress)
    return _loop(run, progress, report)


def _take_weights(network: GPT, model: str) -> None:
    """Fill a network with the weights of a model of the same form.

    Raises:
        InputError: the model has another form, or another language.
        CheckpointError: there is no such model.
    """
    given = checkpoint.load(checkpoint.find(model), device="cpu", dtype="float32")
    ours, theirs = vars(network.config), vars(given.config)
    for name in sorted(set(ours) - {"dropout"}):
        if ours[name] != theirs[name]:
            raise InputError(
                f"the model {model!r} has {name} = {theirs[name]}, this run {ours[name]}: take the recipe of "
                "the model, or start without init_from"
            )
    network.load_state_dict(given.state_dict())


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"no such device: {device!r}; try 'cpu', 'cuda' or 'auto'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"no device {device!r} on this machine; try 'cpu' or 'auto'")
    return found


def _read_recipe(folder: Path) -> Recipe:
    try:
        return Recipe.model_validate_json((folder / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder / RECIPE)!r} is no recipe ({' '.join(str(error).split())[:200]})"
        ) from error


def _loop(
    run: _Run, progress: Progress, report: Callable[[Progress, Losses | None], None] | None
) -> Progress:
    recipe, network, optimizer = run.recipe, run.network, run.optimizer
    losses: deque[float] = deque(maxlen=MEMORY)
    next_validation = _next_validation(recipe, progress.share)
    started = time.monotonic() - progress.seconds
    for epoch, number, batch in _places(run.split, recipe, progress):
        if progress.share >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, progress.update, progress.share)
        total, n = summed_loss(network, batch, run.device, recipe.dtype)
        loss = total / max(1, n)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        value, size = torch.stack([loss.detach(), norm]).tolist()
        if not (math.isfinite(value) and math.isfinite(size)):
            raise _diverged(run, f"the loss is {value} and its gradient {size} at update {progress.update}")
        losses.append(value)
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
            loss=sum(losses) / len(losses),
        )
        found = None
        if progress.share >= next_validation:
            found = validate(network, run.held_out, run.device, recipe.dtype)
            if not math.isfinite(found.crystal):
                raise _diverged(run, f"the validation loss is {found.crystal} at update {update}")
            progress = _record(run, progress, found)
            losses.clear()  # so that a run that is resumed here averages over the same updates
            next_validation = _next_validation(recipe, progress.share)
            started = time.monotonic() - progress.seconds  # validation does not count
        if report:
            report(progress, found)
    return progress


def _next_validation(recipe: Recipe, share: float) -> float:
    """Share of the schedule from which on to validate next: a multiple of `validate_every`, or the end.

    Less a hair, since shares are rounded: 3/20 is below three times 0.05.
    """
    done = math.floor(share / recipe.validate_every + 1e-9)
    return min(1.0, (done + 1) * recipe.validate_every) - 1e-9


def _diverged(run: _Run, what: str) -> CrystallmError:
    return CrystallmError(
        f"{what}; the last good state is in {str(run.folder / STATE)!r}: lower learning_rate in {RECIPE} "
        "beside it and resume, or start again"
    )


def _record(run: _Run, progress: Progress, found: Losses) -> Progress:
    """Write metrics, the model if it is the best so far, and last the state: there a killed run resumes."""
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
    if better:
        checkpoint.save(run.network, run.folder / MODEL)
    _save_state(run, progress)
    return progress
