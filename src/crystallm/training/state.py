"""Where a training run stands, and how that outlives a kill: `state.safetensors` and the models beside it.

The state holds weights, averaged weights, optimizer, the scale of gradients, the last losses and the place in
the data. Random numbers need no state: orders and dropout follow from seed, epoch and micro-batch. Knows
tensors and files, not how a network learns.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crystallm.errors import CheckpointError, CrystallmError, InputError
from crystallm.models import load as models_load
from crystallm.training.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from crystallm.datasets.shards import TokenSplit
    from crystallm.network.transformer import GPT
    from crystallm.training.batch_sampler import BatchSampler
    from crystallm.training.distributed import ProcessGroup


RECIPE, STATE, MODEL, LAST = "recipe.json", "state.safetensors", "model", "last"

KEPT = {"AdamW": ("step", "exp_avg", "exp_avg_sq"), "Muon": ("momentum_buffer",)}
"""What an optimizer keeps of each weight."""

MEMORY = 50  # updates over which the training loss is averaged


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        share: of the schedule, 0 to 1.
        update: optimizer steps done.
        epoch, batch: place in the data.
        seconds: of training, validation not counted.
        tokens: trained on so far.
        loss: mean of the training loss over the last updates (MEMORY at most), nats a token.
        best: lowest validation loss so far, nats a crystal.
        stale: validations since then.
        operations: floating-point operations so far, see `hardware.operations`.
    """

    share: float = 0.0
    update: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss: float = math.inf
    best: float = math.inf
    stale: int = 0
    operations: float = 0.0


@dataclass
class Run:
    """What the loop works on.

    Attributes:
        recipe: of the run.
        network: that learns.
        optimizers: that move its weights.
        scaler: of gradients, disabled unless arithmetic is float16.
        epochs: what there is to learn.
        held_out: split for validation.
        folder: of the run.
        world: the processes that share the work.
        size: micro-batches of an update, of all processes.
        averaged: a network of averaged weights, if the recipe says so.
        weights: (V) of the loss of each token; None: all weigh alike.
        recent: training losses of the last updates, nats a token.
    """

    recipe: Recipe
    network: GPT
    optimizers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    epochs: BatchSampler
    held_out: TokenSplit
    folder: Path
    world: ProcessGroup
    size: int
    averaged: GPT | None = None
    weights: Tensor | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))

    @property
    def shown(self) -> GPT:
        """The network that is validated and saved."""
        return self.network if self.averaged is None else self.averaged

    def optimizer_of(self, parameter: Tensor) -> torch.optim.Optimizer:
        """The one that moves a weight."""
        return next(
            o for o in self.optimizers if any(parameter is p for g in o.param_groups for p in g["params"])
        )

    @property
    def data(self) -> dict[str, int]:
        """Counts that tell one training split from another."""
        found = {"crystals": len(self.epochs.split), "tokens": int(self.epochs.split.starts[-1])}
        if self.epochs.mix is not None:
            found |= {"mixed": len(self.epochs.mix), "mixed_tokens": int(self.epochs.mix.starts[-1])}
        if self.epochs.others is not None:
            others = self.epochs.others
            found |= {"equivalents": len(others), "equivalent_tokens": int(others.starts[-1])}
        return found


def save(run: Run, progress: Progress) -> None:
    """Write the state beside its place and move it there.

    Raises:
        CrystallmError: the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, parameter in run.network.named_parameters():
        tensors[f"weights.{name}"] = parameter.detach()
        for key, value in run.optimizer_of(parameter).state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.detach()
    if run.averaged is not None:
        tensors |= {f"average.{name}": p.detach() for name, p in run.averaged.named_parameters()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"progress": vars(progress), "data": run.data, "size": run.size, "recent": list(run.recent)}
    facts |= {"scaler": run.scaler.state_dict()}
    place = run.folder / f".{STATE}.new"
    try:
        save_file(tensors, str(place), metadata={name: json.dumps(fact) for name, fact in facts.items()})
        with place.open("r+b") as handle:  # Windows syncs no file that is open for reading alone
            os.fsync(handle.fileno())
        place.replace(run.folder / STATE)
    except (OSError, SafetensorError) as error:
        raise CrystallmError(f"cannot write {str(run.folder / STATE)!r}: {error}") from error
    finally:
        place.unlink(missing_ok=True)


def load(run: Run) -> Progress:
    """Fill a run with the state in its folder.

    Raises:
        CheckpointError: it is damaged, or the state of another network.
        InputError: it was trained on other data, or by a number of processes that this one does not go with.
    """
    from safetensors import SafetensorError, safe_open

    path = run.folder / STATE
    try:
        with safe_open(str(path), framework="pt") as stored:
            facts = {name: json.loads(fact) for name, fact in stored.metadata().items()}
            progress = Progress(**facts["progress"])
            for name, parameter in run.network.named_parameters():
                _fill(parameter.data, stored.get_tensor(f"weights.{name}"), name)
                if not progress.update:
                    continue  # the optimizer has kept nothing yet
                optimizer = run.optimizer_of(parameter)
                state = {
                    k: stored.get_tensor(f"optimizer.{k}.{name}") for k in KEPT[type(optimizer).__name__]
                }
                optimizer.state[parameter] = {k: v.to(run.world.device) for k, v in state.items()}
            if run.averaged is not None:
                for name, parameter in run.averaged.named_parameters():
                    _fill(parameter.data, stored.get_tensor(f"average.{name}"), name)
        run.recent.extend(float(loss) for loss in facts.get("recent", ()))
        if facts.get("scaler"):
            run.scaler.load_state_dict(facts["scaler"])
        size = int(facts.get("size", run.size))
    except (SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{str(path)!r} does not hold the state of this run ({why}): is it truncated?"
        ) from error
    if facts.get("data") not in (None, run.data):
        raise InputError(f"{str(path)!r} was trained on other data: {facts['data']}, not {run.data}")
    if size % run.world.size:
        fitting = ", ".join(str(n) for n in range(1, size + 1) if size % n == 0)
        raise InputError(
            f"{str(path)!r} has {size} micro-batches an update, which {run.world.size} processes cannot "
            f"share evenly: start as many as divide it ({fitting})"
        )
    run.size = size
    return progress


def _fill(parameter: Tensor, stored: Tensor, name: str) -> None:
    if stored.shape != parameter.shape:  # else a vector would be spread over a matrix
        raise ValueError(f"{name} has shape {tuple(stored.shape)}, the recipe says {tuple(parameter.shape)}")
    parameter.copy_(stored)


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        CheckpointError: there is none, or it is none.
    """
    try:
        return Recipe.model_validate_json((folder / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder / RECIPE)!r} is no recipe ({' '.join(str(error).split())[:200]})"
        ) from error


def sweep(folder: Path) -> None:
    """Clear away what a killed run was writing when it died."""
    # Of checkpoint.save, of safetensors, of runs.write_atomically, and our own.
    for pattern in (f".{MODEL}.*", f".{LAST}.*", ".tmp*", ".*.tmp", f".{STATE}.new"):
        for leftover in folder.glob(pattern):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def take_weights(network: GPT, model: str) -> None:
    """Fill a network with the weights of a model of the same form.

    Raises:
        InputError: the model has another form, or another language.
        CheckpointError: there is no such model.
    """
    given = models_load.load(models_load.find(model), device="cpu", dtype="float32")
    ours, theirs = vars(network.config), vars(given.config)
    for name in sorted(set(ours) - {"dropout"}):
        if ours[name] != theirs[name]:
            raise InputError(
                f"the model {model!r} has {name} = {theirs[name]}, this run {ours[name]}: take the recipe of "
                "the model, or start without init_from"
            )
    network.load_state_dict(given.state_dict())
