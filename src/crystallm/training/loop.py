"""Training loop: set up, update, validate, save; on one process or several, resumable to the bit.

A run folder holds `recipe.json`, `metrics.jsonl` (one line per validation), `loss.png` (its plot),
`state.safetensors` (all that is needed to resume), and model folders: `model/` with the lowest validation
loss, `last/` of the last validation. Each is written to a temporary path and renamed, the state last, so that
a run killed at any moment resumes from its last validation with the same result.

Does not depend on pymatgen or pyarrow.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystallm.datasets import shards
from crystallm.errors import InputError
from crystallm.language import get_language
from crystallm.models.folder import save as save_model
from crystallm.models.load import find, load
from crystallm.network.config import ConditionScale, ModelConfig
from crystallm.network.transformer import GPT
from crystallm.storage import files
from crystallm.training import conditions, distributed, flops, metrics, prefetch, state
from crystallm.training.batch_sampler import BatchSampler
from crystallm.training.loss import Losses, validate
from crystallm.training.metrics import METRICS
from crystallm.training.recipe import ARCHITECTURE, Recipe, learning_rate, next_validation
from crystallm.training.state import LAST, MODEL, RECIPE, STATE, Run, TrainingProgress
from crystallm.training.step import divergence_error, make_optimizers, train_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystallm.training.batch_sampler import UpdateBatches
    from crystallm.training.distributed import ProcessGroup

    Report = Callable[[TrainingProgress, Losses | None], None]


# ------------------------------------------------------------------------------------------------ set up


def train(
    recipe: Recipe,
    data: str | Path,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    report: Report | None = None,
) -> TrainingProgress:
    """Train a network, or resume an interrupted run.

    Under `torchrun` all processes call this function; only the first writes and reports.

    Args:
        recipe: network and schedule; ignored on resume, where that of the folder counts.
        data: data set folder with the splits `train` and `val`.
        folder: run folder; new, unless `resume`.
        resume: continue from the last checkpoint in `folder`, with any number of processes that divides the
            micro-batches of an update.
        report: called after each update (losses None) and each validation.

    Raises:
        InputError: no data, no such device, a folder with another run, nothing to resume, other data on
            resume.
        CheckpointError: the state to resume is damaged.
        CrystallmError: the loss is NaN or has jumped (the last good state stays), the folder cannot be
            written, or another process has failed.
    """
    folder = Path(folder)
    with distributed.processes(device) as world:
        with world.together():
            run = _prepare(recipe, data, folder, world, resume=resume)
            progress = state.load(run) if resume else TrainingProgress()
        world.equalize_([parameter.data for parameter in run.network.parameters()])
        with world.together():
            if world.first:
                if resume:
                    state.remove_temporary(folder)
                    metrics.truncate(folder, progress.update)
                else:
                    text = recipe.model_dump_json(indent=2) + "\n"
                    files.write_atomically(folder / RECIPE, text.encode())
                    state.save(run, progress)
        return _loop(run, progress, report)


def architecture_of(model: str) -> dict[str, Any]:
    """Return the fields `recipe.ARCHITECTURE` of a model's network.

    Raises:
        CheckpointError: there is no such model.
    """
    return load(find(model), device="cpu").config.model_dump(include=set(ARCHITECTURE))


def _prepare(recipe: Recipe, data: str | Path, folder: Path, world: ProcessGroup, *, resume: bool) -> Run:
    """Set up a run before its state is loaded; writes nothing."""
    split = shards.load(data, "train")
    held_out: shards.Split = shards.load(data, "val")
    if resume:
        if not (folder / STATE).is_file():
            raise InputError(f"nothing to resume in {str(folder)!r}: it holds no {STATE}")
        recipe = state.read_recipe(folder)
    elif any((folder / name).exists() for name in (STATE, METRICS, MODEL)):
        raise InputError(f"{str(folder)!r} holds a run already: resume it, or give a new folder")
    if recipe.language not in (None, split.language):
        raise InputError(
            f"the data set {str(data)!r} is in the language {split.language!r}, and the recipe for "
            f"{recipe.language!r}: prepare the data with --language {recipe.language}, or take another recipe"
        )
    replay = _load_replay(recipe.replay_dataset, split) if recipe.replay_dataset is not None else None
    augmentations = _load_augmentations(data, split) if recipe.augmentation_share else None
    values = held_out_values = None
    scales: tuple[ConditionScale, ...] = ()
    if recipe.condition:
        values, held_out_values = conditions.load_values(
            recipe,
            data,
            n_replayed=None if replay is None else len(replay),
            n_augmented=None if augmentations is None else len(augmentations),
        )
        scales = conditions.make_scales(recipe, data, values[: len(split)], folder, resume=resume)
    relatives, n_relatives = None, 0
    if recipe.relatives_share:
        n_relatives = shards.n_relatives(data)
        relatives = shards.with_relatives(data, "train")
        held_out = shards.with_relatives(data, "val")
    sampler = BatchSampler(recipe, split, replay, augmentations, values, relatives)
    _check_lengths(recipe, data, sampler, held_out)
    torch.manual_seed(recipe.seed)
    shape = {"language": split.language, "vocab_size": split.vocab_size, "dropout": recipe.dropout}
    shape |= {"condition_scales": scales, "n_relatives": n_relatives}
    config = ModelConfig.build(shape | recipe.model_dump(include=set(ARCHITECTURE)))
    network = GPT(config).to(world.device).train()
    if recipe.init_from is not None and not resume:
        state.load_initial_weights(network, recipe.init_from)
    recipe = recipe.model_copy(update={"dtype": _resolve_dtype(recipe.dtype, world.device)})
    scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.dtype == "float16")
    size = recipe.gradient_accumulation * world.size
    if recipe.rare_group_exponent:
        _ = sampler.weights  # raises for data without space groups
    run = Run(
        recipe, network, make_optimizers(network, recipe), scaler, sampler, held_out, folder, world, size
    )
    run.held_out_values = held_out_values
    if recipe.low_weight != 1.0:
        run.token_weights = torch.ones(split.vocab_size, device=world.device)
        run.token_weights[list(get_language(split.language).low_weight_ids)] = recipe.low_weight
    return run


def _check_lengths(recipe: Recipe, data: str | Path, sampler: BatchSampler, held_out: shards.Split) -> None:
    """Raise InputError if a split has no crystal that fits the context."""
    splits = [("train", data, sampler.split), ("val", data, held_out)]
    if sampler.replay is not None:
        splits.append(("train", str(recipe.replay_dataset), sampler.replay))
    for name, folder, split in splits:
        longest = recipe.context if name == "val" or recipe.packing == "packed" else np.inf
        if not ((split.lengths > 0) & (split.lengths <= longest)).any():
            raise InputError(
                f"no crystal of the split {name!r} in {str(folder)!r} fits a context of {recipe.context} "
                "tokens"
            )


def _load_augmentations(data: str | Path, split: shards.TokenSplit) -> shards.TokenSplit:
    """Load equivalent descriptions of the crystals of a split."""
    remedy = (
        "prepare the data with `crystallm prepare --augmentations 6`, or train with augmentation_share = 0"
    )
    try:
        augmentations = shards.load(data, shards.EQUIVALENTS)
    except InputError as error:
        raise InputError(f"{error}: {remedy}") from None
    if not len(augmentations) or len(augmentations) % len(split):
        raise InputError(
            f"the split {shards.EQUIVALENTS!r} in {str(data)!r} has {len(augmentations)} crystals, no "
            f"multiple of the {len(split)} of 'train': {remedy}"
        )
    return augmentations


def _load_replay(folder: str, split: shards.TokenSplit) -> shards.TokenSplit:
    replay = shards.load(folder, "train")
    if (replay.language, replay.vocab_size) != (split.language, split.vocab_size):
        raise InputError(
            f"replay_dataset = {folder!r} is in {replay.language!r} with {replay.vocab_size} tokens, the "
            f"data set in {split.language!r} with {split.vocab_size}: prepare both with the same --language"
        )
    return replay


def _resolve_dtype(dtype: str, device: torch.device) -> str:
    if dtype != "auto":
        return dtype
    return "float16" if device.type == "cuda" and not torch.cuda.is_bf16_supported() else "bfloat16"


# -------------------------------------------------------------------------------------------------- loop


def _loop(run: Run, progress: TrainingProgress, report: Report | None) -> TrainingProgress:
    recipe, world, config = run.recipe, run.world, run.network.config
    if recipe.compile:
        run.network.compile_blocks()
    n_weights = run.network.num_parameters()
    board = metrics.TensorBoard(run.folder, progress.update) if world.first else None
    validate_next = next_validation(recipe, progress.share)
    started = time.monotonic() - progress.seconds
    updates = run.sampler.updates(
        progress.epoch, progress.batch, size=run.size, rank=world.rank, n_ranks=world.size
    )
    with prefetch.prefetched(_to_device(batches, world.device) for batches in updates) as prefetched:
        while not _is_finished(recipe, progress):
            counts, batches = next(prefetched)
            loss = train_step(run, progress, counts, batches)
            n_updates, seconds = progress.update + 1, world.from_first(time.monotonic() - started)
            tokens = progress.tokens + counts.n_tokens
            progress = replace(
                progress,
                share=min(1.0, _schedule_share(recipe, n_updates, tokens, seconds)),
                update=n_updates,
                epoch=counts.epoch,
                batch=counts.batch,
                seconds=seconds,
                tokens=tokens,
                loss=sum(run.recent) / len(run.recent) if run.recent else loss,
                operations=progress.operations
                + flops.count_operations(config, n_weights, counts.n_tokens, counts.attended),
            )
            losses = None
            if progress.share >= validate_next:
                losses = validate(
                    run.network, run.held_out, world.device, recipe.dtype, world, values=run.held_out_values
                )
                if not math.isfinite(losses.crystal):
                    raise divergence_error(
                        run, f"the validation loss is {losses.crystal} at update {n_updates}"
                    )
                progress = _checkpoint(run, progress, losses, board)
                validate_next = next_validation(recipe, progress.share)
                started = time.monotonic() - progress.seconds  # validation is not counted
            if report and world.first:
                report(progress, losses)
    if board is not None:
        board.close()
    return progress


def _is_finished(recipe: Recipe, progress: TrainingProgress) -> bool:
    return progress.share >= 1.0 or (recipe.patience is not None and progress.stale >= recipe.patience)


def _schedule_share(recipe: Recipe, n_updates: int, n_tokens: int, seconds: float) -> float:
    if recipe.max_updates is not None:
        return n_updates / recipe.max_updates
    if recipe.max_tokens is not None:
        return n_tokens / recipe.max_tokens
    return seconds / (60 * (recipe.max_minutes or 1))


def _to_device(
    batches: UpdateBatches, device: torch.device
) -> tuple[UpdateBatches, list[tuple[int, prefetch.DeviceBatch]]]:
    return batches, [
        (seed, prefetch.to_tensors(batch, device, pinned=True)) for seed, batch in batches.batches
    ]


def _checkpoint(
    run: Run, progress: TrainingProgress, losses: Losses, board: metrics.TensorBoard | None
) -> TrainingProgress:
    """Write metrics, the models, and last the state, from which a killed run resumes."""
    is_best = losses.crystal < progress.best
    progress = replace(
        progress, best=min(progress.best, losses.crystal), stale=0 if is_best else progress.stale + 1
    )
    with run.world.together():
        if board is not None:
            line = _metrics_line(run, progress, losses)
            metrics.append(run.folder, line)
            metrics.plot(run.folder)
            board.add(line)
            if is_best:
                save_model(run.network, run.folder / MODEL)
            save_model(run.network, run.folder / LAST)
            state.save(run, progress)
    return progress


def _metrics_line(run: Run, progress: TrainingProgress, losses: Losses) -> dict[str, Any]:
    earlier = metrics.read(run.folder)[-1:] or [{"tokens": 0, "seconds": 0.0}]
    tokens, seconds = progress.tokens - earlier[0]["tokens"], progress.seconds - earlier[0]["seconds"]
    return {
        "update": progress.update,
        "share": round(progress.share, 4),
        "epoch": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "tokens": progress.tokens,
        "tokens_per_second": round(tokens / max(1e-3, seconds)),
        "train_loss": round(progress.loss, 5),
        "val_loss": round(losses.token, 5),
        "val_loss_crystal": round(losses.crystal, 4),
        "learning_rate": learning_rate(run.recipe, progress.update, progress.share),
    }
