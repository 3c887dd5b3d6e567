"""One update of a network: gradients of its micro-batches, summed over all processes, and a step.

An update learns from `accumulate` micro-batches on each process; its loss is the sum over all of them,
divided by the number of all their targets, so that two processes learn what one learns from twice as many.
Knows tensors, not where batches come from or what is done with the network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from crystallm.errors import CrystallmError
from crystallm.training.loss import summed_loss
from crystallm.training.recipe import Recipe, rate
from crystallm.training.state import RECIPE, STATE, Progress, Run

if TYPE_CHECKING:
    from torch import Tensor

    from crystallm.network.transformer import GPT
    from crystallm.training.batch_sampler import UpdateBatches
    from crystallm.training.loss import Features
    from crystallm.training.prefetch import DeviceBatch


MOMENTUM = 0.95  # Muon's

_SPIKE_FROM = 10  # losses that a mean needs before a spike is told from chance

_LOWEST_SCALE = 2.0**-14  # of gradients in float16: below, they overflow whatever the scale


def optimizers(network: GPT, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """What moves a network's weights; vectors are not decayed.

    Muon's steps for a matrix have orthogonal rows or columns (arXiv:2502.16982, whose scaling makes them as
    large as AdamW's, so that both take one learning rate).
    """
    parameters = dict(network.named_parameters())
    inner = [p for name, p in parameters.items() if p.dim() == 2 and ".h." in name]
    muon = inner if recipe.optimizer == "muon" else []
    others = [p for p in parameters.values() if not any(p is one for one in muon)]
    groups = [
        {"params": [p for p in others if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (recipe.beta1, recipe.beta2)
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, fused=True)
    ]
    if muon:
        found.append(
            torch.optim.Muon(
                muon,
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                momentum=MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return found


def learn(
    run: Run,
    progress: Progress,
    step: UpdateBatches,
    batches: list[tuple[int, DeviceBatch]],
    features: Features,
) -> float:
    """One step of the optimizer.

    Args:
        run: whose network learns.
        progress: before this update.
        step: counts of the micro-batches of all processes.
        batches: micro-batches of this process, each with the seed of its dropout.
        features: the network's, compiled or as they are.

    Returns:
        The loss before the step, nats a token.

    Raises:
        CrystallmError: the loss is no number, or has jumped; or another process has failed.
    """
    recipe, network, scaler = run.recipe, run.network, run.scaler
    for group in (group for optimizer in run.optimizers for group in optimizer.param_groups):
        group["lr"] = rate(recipe, progress.update, progress.share)
    total, failure = torch.zeros((), device=run.world.device), None
    try:
        for seed, batch in batches:
            if recipe.dropout:
                torch.manual_seed(seed)
            found = summed_loss(network, batch, run.world.device, recipe.dtype, features, weights=run.weights)
            n = max(1, step.n_taught)
            scaler.scale(found.weighed / n).backward()  # type: ignore[no-untyped-call]
            total += found.whole / n
    except Exception as error:
        if run.world.size == 1:
            raise
        failure = error  # the others wait for this process's gradients, and are told in their place
    _sum_gradients(run, total, failure)
    for optimizer in run.optimizers:
        scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
    value, size = torch.stack([total, norm]).tolist()
    overflow = scaler.is_enabled() and not math.isfinite(size) and scaler.get_scale() > _LOWEST_SCALE
    if not math.isfinite(value) or not (math.isfinite(size) or overflow):
        raise diverged(run, f"the loss is {value} and its gradient {size} at update {progress.update}")
    if recipe.spike is not None and len(run.recent) >= _SPIKE_FROM:
        mean = sum(run.recent) / len(run.recent)
        if value > mean + recipe.spike:
            raise diverged(
                run,
                f"the loss is {value:.3f} at update {progress.update}, where the mean of the last "
                f"{len(run.recent)} was {mean:.3f}",
                ", or set spike to null",
            )
    run.recent.append(value)
    for optimizer in run.optimizers:
        scaler.step(optimizer)
    scaler.update()
    network.zero_grad(set_to_none=True)
    if run.averaged is not None and recipe.ema is not None:
        done = progress.update + 1
        # At the start the average is over the few updates that there are, not over first weights.
        kept = min(recipe.ema, (1 + done) / (10 + done))
        with torch.no_grad():
            averages: list[Tensor] = list(run.averaged.parameters())
            weights: list[Tensor] = list(network.parameters())
            torch._foreach_lerp_(averages, weights, 1 - kept)
    return float(value)


def _sum_gradients(run: Run, total: Tensor, failure: Exception | None) -> None:
    """Sum gradients and losses over all processes by one message."""
    if run.world.size == 1:
        return
    parameters = list(run.network.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    failed = total.new_tensor(float(failure is not None))
    flat = torch.cat([*(g.flatten() for g in gradients), total[None], failed[None]])
    run.world.sum_(flat)
    if flat[-1].item():
        run.world.agree(failure)
    total.copy_(flat[-2])
    parts = torch.split(flat[:-2], [p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def diverged(run: Run, what: str, more: str = "") -> CrystallmError:
    """The error that says what went wrong with a loss, and how to go on.

    Args:
        run: that stops.
        what: went wrong.
        more: that may mend it.
    """
    return CrystallmError(
        f"{what}; the last good state is in {str(run.folder / STATE)!r}: lower learning_rate in {RECIPE} "
        f"beside it and resume{more}, or start again"
    )
