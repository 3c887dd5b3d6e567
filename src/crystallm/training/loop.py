"""The training loop: AdamW, warm-up and cosine, on one process or several, resumable to the bit.

A run folder holds `recipe.json` (the configuration), `metrics.jsonl` (a line at every validation), `loss.png`
of these, `state.safetensors` (all that the run needs to go on), and the weights as `checkpoint` saves them:
`model/` with the lowest validation loss, `last/` of the last validation. Each is written beside its place
and moved into it, the state last, so that a run killed at any moment goes on from its last validation as if
it had never been.

Needs torch, numpy, pydantic and safetensors; knows tokens and losses, not crystals.
"""

from __future__ import annotations

import copy
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
from crystallm.models import folder as models_folder
from crystallm.models import load
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.storage import files
from crystallm.training import distributed, flops, metrics, prefetch, state
from crystallm.training.batch_sampler import BatchSampler
from crystallm.training.loss import Losses, validate
from crystallm.training.metrics import METRICS
from crystallm.training.recipe import FORM, Recipe, next_validation, rate
from crystallm.training.state import LAST, MODEL, RECIPE, STATE, Progress, Run
from crystallm.training.step import diverged, learn, optimizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystallm.training.batch_sampler import UpdateBatches
    from crystallm.training.distributed import ProcessGroup
    from crystallm.training.loss import Features

    Report = Callable[[Progress, Losses | None], None]


# ------------------------------------------------------------------------------------------------- start


def train(
    recipe: Recipe,
    data: str | Path,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    report: Report | None = None,
) -> Progress:
    """Train a network, or go on with a run that was interrupted.

    Under `torchrun`, all processes call this; the first alone writes and reports.

    Args:
        recipe: model and schedule; ignored on resume, where the folder's own counts.
        data: data set folder with the splits `train` and `val`.
        folder: run folder; new, unless `resume`.
        resume: go on from the last checkpoint in `folder`, with any number of processes that divides the
            micro-batches of an update.
        device: 'cpu', 'cuda', or 'auto'.
        report: called after each update (losses None) and each validation.

    Raises:
        InputError: no data, no such device, a folder that is taken, nothing to resume, other data on resume.
        CheckpointError: the state to resume is damaged.
        CrystallmError: the loss is no number or has jumped (the last good state stays), or the folder cannot
            be written, or another process has failed.
    """
    place = Path(folder)
    with distributed.world(device) as world:
        with world.together():
            run = _prepared(recipe, data, place, world, resume=resume)
            progress = state.load(run) if resume else Progress()
        world.equalise_([parameter.data for parameter in run.network.parameters()])
        with world.together():
            if world.first:
                if resume:
                    state.sweep(place)
                    metrics.forget(place, progress.update)
                else:
                    text = recipe.model_dump_json(indent=2) + "\n"
                    files.write_atomically(place / RECIPE, text.encode())
                    state.save(run, progress)
        return _loop(run, progress, report)


def form_of(model: str) -> dict[str, Any]:
    """What a recipe says of the network of a model: its `recipe.FORM`.

    Raises:
        CheckpointError: there is no such model.
    """
    config = load.load(load.find(model), device="cpu").config
    return config.model_dump(include=set(FORM))


def _prepared(recipe: Recipe, data: str | Path, place: Path, world: ProcessGroup, *, resume: bool) -> Run:
    """All that the loop works on, before its state is loaded; writes nothing."""
    split, held_out = shards.load(data, "train"), shards.load(data, "val")
    if resume:
        if not (place / STATE).is_file():
            raise InputError(f"nothing to resume in {str(place)!r}: it holds no {STATE}")
        recipe = state.read_recipe(place)
    elif any((place / name).exists() for name in (STATE, METRICS, MODEL)):
        raise InputError(f"{str(place)!r} holds a run already: resume it, or give a new folder")
    if recipe.language not in (None, split.language):
        raise InputError(
            f"the data set {str(data)!r} is in the language {split.language!r}, and the recipe for "
            f"{recipe.language!r}: prepare the data with --language {recipe.language}, or take another recipe"
        )
    mix = None if recipe.mix is None else _mixed(recipe.mix, split)
    whole = [("train", data, split), ("val", data, held_out), ("train", recipe.mix, mix)]
    for name, origin, part in whole:
        longest = recipe.context if name == "val" or recipe.windows == "packed" else np.inf
        if part is not None and not ((part.lengths > 0) & (part.lengths <= longest)).any():
            raise InputError(
                f"no crystal of the split {name!r} in {str(origin)!r} fits a context of {recipe.context} "
                "tokens"
            )
    torch.manual_seed(recipe.seed)
    config = ModelConfig(
        language=split.language,
        vocab_size=split.vocab_size,
        dropout=recipe.dropout,
        **recipe.model_dump(include=set(FORM)),
    )
    network = GPT(config).to(world.device).train()
    if recipe.init_from is not None and not resume:
        state.take_weights(network, recipe.init_from)
    recipe = recipe.model_copy(update={"dtype": _dtype(recipe.dtype, world.device)})
    scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.dtype == "float16")
    size = recipe.accumulate * world.size
    epochs = BatchSampler(recipe, split, mix, _equivalents(data, split) if recipe.equivalents else None)
    if recipe.rare:
        _ = epochs.weights  # so that data without space groups are refused now
    run = Run(recipe, network, optimizers(network, recipe), scaler, epochs, held_out, place, world, size)
    if recipe.ema is not None:
        run.averaged = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    if recipe.light != 1.0:
        run.weights = torch.ones(split.vocab_size, device=world.device)
        run.weights[list(get_language(split.language).low_weight_ids)] = recipe.light
    return run


def _equivalents(data: str | Path, split: shards.TokenSplit) -> shards.TokenSplit:
    """Other descriptions of the crystals of a split.

    Raises:
        InputError: the data set has none, or those of other crystals.
    """
    mend = "prepare the data with `crystallm prepare --equivalents 6`, or train with equivalents = 0"
    try:
        others = shards.load(data, shards.EQUIVALENTS)
    except InputError as error:
        raise InputError(f"{error}: {mend}") from None
    if not len(others) or len(others) % len(split):
        raise InputError(
            f"the split {shards.EQUIVALENTS!r} in {str(data)!r} has {len(others)} crystals, no multiple of "
            f"the {len(split)} of 'train': {mend}"
        )
    return others


def _mixed(folder: str, split: shards.TokenSplit) -> shards.TokenSplit:
    mix = shards.load(folder, "train")
    if (mix.language, mix.vocab_size) != (split.language, split.vocab_size):
        raise InputError(
            f"mix = {folder!r} is in {mix.language!r} with {mix.vocab_size} tokens, the data set in "
            f"{split.language!r} with {split.vocab_size}: prepare both with the same --language"
        )
    return mix


def _dtype(dtype: str, device: torch.device) -> str:
    if dtype != "auto":
        return dtype
    return "float16" if device.type == "cuda" and not torch.cuda.is_bf16_supported() else "bfloat16"


# -------------------------------------------------------------------------------------------------- loop


def _loop(run: Run, progress: Progress, report: Report | None) -> Progress:
    recipe, world, config = run.recipe, run.world, run.network.config
    features: Features = torch.compile(run.network.features) if recipe.compile else run.network.features
    n_weights = run.network.num_parameters()
    board = metrics.Board(run.folder, progress.update) if world.first else None
    validate_next = next_validation(recipe, progress.share)
    started = time.monotonic() - progress.seconds
    places = run.epochs.steps(
        progress.epoch, progress.batch, size=run.size, rank=world.rank, n_ranks=world.size
    )
    with prefetch.ahead(_fed(step, world.device) for step in places) as steps:
        while not _ended(recipe, progress):
            step, batches = next(steps)
            value = learn(run, progress, step, batches, features)
            update, seconds = progress.update + 1, world.of_first(time.monotonic() - started)
            tokens = progress.tokens + step.n_tokens
            progress = replace(
                progress,
                share=min(1.0, _share(recipe, update, tokens, seconds)),
                update=update,
                epoch=step.epoch,
                batch=step.batch,
                seconds=seconds,
                tokens=tokens,
                loss=sum(run.recent) / len(run.recent) if run.recent else value,
                operations=progress.operations
                + flops.operations(config, n_weights, step.n_tokens, step.attended),
            )
            found = None
            if progress.share >= validate_next:
                found = validate(run.shown, run.held_out, world.device, recipe.dtype, world)
                if not math.isfinite(found.crystal):
                    raise diverged(run, f"the validation loss is {found.crystal} at update {update}")
                progress = _record(run, progress, found, board)
                validate_next = next_validation(recipe, progress.share)
                started = time.monotonic() - progress.seconds  # validation does not count
            if report and world.first:
                report(progress, found)
    if board is not None:
        board.close()
    return progress


def _ended(recipe: Recipe, progress: Progress) -> bool:
    return progress.share >= 1.0 or (recipe.patience is not None and progress.stale >= recipe.patience)


def _share(recipe: Recipe, update: int, tokens: int, seconds: float) -> float:
    if recipe.updates is not None:
        return update / recipe.updates
    return tokens / recipe.tokens if recipe.tokens is not None else seconds / (60 * (recipe.minutes or 1))


def _fed(
    step: UpdateBatches, device: torch.device
) -> tuple[UpdateBatches, list[tuple[int, prefetch.DeviceBatch]]]:
    return step, [(seed, prefetch.fed(batch, device, pinned=True)) for seed, batch in step.batches]


def _record(run: Run, progress: Progress, found: Losses, board: metrics.Board | None) -> Progress:
    """Write metrics, the models, and last the state: there a killed run resumes."""
    better = found.crystal < progress.best
    earlier = metrics.lines(run.folder)[-1:] if board is not None else []
    tokens, seconds = (
        (progress.tokens, progress.seconds)
        if not earlier
        else (progress.tokens - earlier[0]["tokens"], progress.seconds - earlier[0]["seconds"])
    )
    progress = replace(
        progress, best=min(progress.best, found.crystal), stale=0 if better else progress.stale + 1
    )
    line = {
        "update": progress.update,
        "share": round(progress.share, 4),
        "epoch": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "tokens": progress.tokens,
        "tokens_per_second": round(tokens / max(1e-3, seconds)),
        "train_loss": round(progress.loss, 5),
        "val_loss": round(found.token, 5),
        "val_loss_crystal": round(found.crystal, 4),
        "learning_rate": rate(run.recipe, progress.update, progress.share),
    }
    with run.world.together():
        if board is not None:
            metrics.log(run.folder, line)
            metrics.picture(run.folder)
            board.tell(line)
            if better:
                models_folder.save(run.shown, run.folder / MODEL)
            models_folder.save(run.shown, run.folder / LAST)
            state.save(run, progress)
    return progress
