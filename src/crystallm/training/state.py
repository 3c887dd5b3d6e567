"""State of a training run: saved to `state.safetensors` and loaded on resume.

The state holds weights, optimizer, gradient scale, the last losses and the position in the data. Random
numbers need no state: order and dropout follow from seed, epoch and micro-batch.
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
from crystallm.models import load as models
from crystallm.training.recipe import Recipe, renamed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from crystallm.datasets.shards import Split
    from crystallm.network.transformer import GPT
    from crystallm.training.batch_sampler import BatchSampler
    from crystallm.training.distributed import ProcessGroup

RECIPE, STATE, MODEL, LAST = "recipe.json", "state.safetensors", "model", "last"
KEPT = {"AdamW": ("step", "exp_avg", "exp_avg_sq"), "Muon": ("momentum_buffer",)}
"""State of each optimizer per parameter."""
_CONDITIONS = "transformer.conditions.weight"
MEMORY = 50  # updates over which the training loss is averaged


@dataclass(frozen=True)
class TrainingProgress:
    """TrainingProgress of a run.

    Attributes:
        share: done fraction of the schedule, 0 to 1.
        epoch: of the position in the data.
        seconds: of training, without validation.
        loss: mean training loss of the last updates (at most MEMORY), nats a token.
        best: lowest validation loss, nats a crystal.
        stale: number of validations since the lowest.
        operations: floating-point operations, see `flops.count_operations`.
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
    """Objects of a training run.

    Attributes:
        scaler: of gradients, disabled unless arithmetic is float16.
        held_out: split for validation.
        size: micro-batches of an update, over all processes.
        token_weights: (V) weight in the loss of each token; None: equal.
        held_out_values: [n, n_properties] of the crystals of `held_out`; None without conditions.
        recent: training losses of the last updates, nats a token.
    """

    recipe: Recipe
    network: GPT
    optimizers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    sampler: BatchSampler
    held_out: Split
    folder: Path
    world: ProcessGroup
    size: int
    token_weights: Tensor | None = None
    held_out_values: npt.NDArray[np.float64] | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))

    def optimizer_of(self, parameter: Tensor) -> torch.optim.Optimizer:
        """Return the optimizer of a parameter."""
        return next(
            o for o in self.optimizers if any(parameter is p for g in o.param_groups for p in g["params"])
        )

    @property
    def data(self) -> dict[str, int]:
        """Counts that identify the training data; their names are part of the file format."""
        split, replay, augmentations = self.sampler.split, self.sampler.replay, self.sampler.augmentations
        counts = {"crystals": len(split), "tokens": int(split.starts[-1])}
        if replay is not None:
            counts |= {"mixed": len(replay), "mixed_tokens": int(replay.starts[-1])}
        if augmentations is not None:
            n_tokens = int(augmentations.starts[-1])
            counts |= {"equivalents": len(augmentations), "equivalent_tokens": n_tokens}
        return counts


def save(run: Run, progress: TrainingProgress) -> None:
    """Save the state: write a temporary file and rename it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, parameter in run.network.named_parameters():
        tensors[f"weights.{name}"] = parameter.detach()
        for key, value in run.optimizer_of(parameter).state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.detach()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"progress": vars(progress), "data": run.data, "size": run.size, "recent": list(run.recent)}
    facts |= {"scaler": run.scaler.state_dict()}
    temporary = run.folder / f".{STATE}.new"
    try:
        save_file(tensors, str(temporary), metadata={name: json.dumps(fact) for name, fact in facts.items()})
        with temporary.open("r+b") as handle:  # Windows syncs no file that is open for reading only
            os.fsync(handle.fileno())
        temporary.replace(run.folder / STATE)
    except (OSError, SafetensorError) as error:
        raise CrystallmError(f"cannot write {str(run.folder / STATE)!r}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(run: Run) -> TrainingProgress:
    """Load the state in the folder of a run into it.

    Raises:
        CheckpointError: the state is damaged, or of another network.
        InputError: it was trained on other data, or its updates cannot be shared by this number of processes.
    """
    from safetensors import SafetensorError, safe_open

    path = run.folder / STATE
    try:
        with safe_open(str(path), framework="pt") as stored:
            facts = {name: json.loads(fact) for name, fact in stored.metadata().items()}
            progress = TrainingProgress(**facts["progress"])
            for name, parameter in run.network.named_parameters():
                _fill(parameter.data, stored.get_tensor(f"weights.{name}"), name)
                if not progress.update:
                    continue  # the optimizer has no state yet
                optimizer = run.optimizer_of(parameter)
                state = {
                    k: stored.get_tensor(f"optimizer.{k}.{name}") for k in KEPT[type(optimizer).__name__]
                }
                optimizer.state[parameter] = {k: v.to(run.world.device) for k, v in state.items()}
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
    if stored.shape != parameter.shape:  # copy_ would broadcast a vector over a matrix
        raise ValueError(f"{name} has shape {tuple(stored.shape)}, the recipe says {tuple(parameter.shape)}")
    parameter.copy_(stored)


def read_recipe(folder: Path) -> Recipe:
    """Read the recipe of a run; former names of fields are accepted.

    Raises:
        CheckpointError: the file is missing or not a recipe.
    """
    try:
        return Recipe.model_validate(renamed(json.loads((folder / RECIPE).read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{str(folder / RECIPE)!r} is not a recipe ({' '.join(str(error).split())[:200]})"
        ) from error


def remove_temporary(folder: Path) -> None:
    """Remove temporary files and folders of a killed run."""
    # Of models.folder.save, safetensors, files.write_atomically, and `save`.
    for pattern in (f".{MODEL}.*", f".{LAST}.*", ".tmp*", ".*.tmp", f".{STATE}.new"):
        for leftover in folder.glob(pattern):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def load_initial_weights(network: GPT, model: str) -> None:
    """Load the weights of a model of the same architecture; the vectors of conditions it lacks stay zero.

    Raises:
        InputError: the model has another architecture or language.
        CheckpointError: there is no such model.
    """
    initial = models.load(models.find(model), device="cpu", dtype="float32")
    ours, initials = vars(network.config), vars(initial.config)
    for name in sorted(set(ours) - {"dropout", "condition_scales", "n_relatives"}):
        if ours[name] != initials[name]:
            raise InputError(
                f"the model {model!r} has {name} = {initials[name]}, this run {ours[name]}: take the recipe "
                "of the model, or start without init_from"
            )
    weights = {name: tensor for name, tensor in initial.state_dict().items() if name != _CONDITIONS}
    network.load_state_dict(weights, strict=False)
    vectors, initial_vectors = network.transformer.conditions, initial.transformer.conditions
    if vectors is None or initial_vectors is None:
        return
    for i, name in enumerate(network.config.conditions):
        if name in initial.config.conditions:
            j = initial.config.conditions.index(name)
            vectors.weight.data[i] = initial_vectors.weight.data[j]
