"""One update of a network: gradients of its micro-batches, summed over all processes, and an optimizer step.

An update learns from `gradient_accumulation` micro-batches on each process. Its loss is the sum over all
targets divided by their number, so that two processes learn the same as one with twice as many micro-batches.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from crystallm.errors import CrystallmError
from crystallm.training.loss import sum_losses
from crystallm.training.recipe import Recipe, learning_rate
from crystallm.training.state import RECIPE, STATE, Run, TrainingProgress

if TYPE_CHECKING:
    from torch import Tensor

    from crystallm.network.transformer import GPT
    from crystallm.training.batch_sampler import UpdateBatches
    from crystallm.training.prefetch import DeviceBatch

MOMENTUM = 0.95  # of Muon
_MIN_LOSSES = 10  # number of losses from which their mean tells a jump
_MIN_SCALE = 2.0**-14  # of float16 gradients: below it, an overflow is not due to the scale


def make_optimizers(network: GPT, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a network; vectors are not decayed.

    The updates of Muon have orthogonal rows or columns (arXiv:2502.16982, scaled there to the size of
    AdamW's, so that both share one learning rate).

    Raises:
        CrystallmError: Muon is wanted of a torch older than 2.9.
    """
    parameters = dict(network.named_parameters())
    inner = [p for name, p in parameters.items() if p.dim() == 2 and ".h." in name]
    muon = inner if recipe.optimizer == "muon" else []
    if muon and not hasattr(torch.optim, "Muon"):
        raise CrystallmError(
            f"optimizer = 'muon' needs torch 2.9 or newer, this is {torch.__version__}: "
            "pip install -U torch, or take optimizer = 'adamw'"
        )
    rest = [p for p in parameters.values() if not any(p is matrix for matrix in muon)]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True)
    ]
    if muon:
        optimizers.append(
            torch.optim.Muon(
                muon,
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                momentum=MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def train_step(
    run: Run,
    progress: TrainingProgress,
    counts: UpdateBatches,
    batches: list[tuple[int, DeviceBatch]],
) -> float:
    """Make one update.

    Args:
        batches: micro-batches of this process, each with its dropout seed.

    Returns:
        The loss before the update, nats a token.

    Raises:
        CrystallmError: the loss is NaN or has jumped; or another process has failed.
    """
    recipe, network, scaler = run.recipe, run.network, run.scaler
    for group in (group for optimizer in run.optimizers for group in optimizer.param_groups):
        group["lr"] = learning_rate(recipe, progress.update, progress.share)
    total, failure = torch.zeros((), device=run.world.device), None
    try:
        for seed, batch in batches:
            if recipe.dropout:
                torch.manual_seed(seed)
            sums = sum_losses(network, batch, run.world.device, recipe.dtype, weights=run.token_weights)
            n = max(1, counts.n_taught)
            scaler.scale(sums.weighted / n).backward()  # type: ignore[no-untyped-call]
            total += sums.unweighted / n
    except Exception as error:
        if run.world.size == 1:
            raise
        failure = error  # the other processes wait for these gradients, and get the error instead
    _sum_gradients(run, total, failure)
    for optimizer in run.optimizers:
        scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
    loss, gradient = torch.stack([total, norm]).tolist()
    _check_loss(run, progress, loss, gradient)
    run.recent.append(loss)
    if math.isfinite(gradient):  # one verdict for all: an optimizer does not see the overflows of another
        for optimizer in run.optimizers:
            scaler.step(optimizer)
    scaler.update()
    network.zero_grad(set_to_none=True)
    return float(loss)


def _check_loss(run: Run, progress: TrainingProgress, loss: float, gradient: float) -> None:
    """Raise CrystallmError if loss or gradient norm are not finite, or the loss has jumped."""
    scaler = run.scaler
    overflow = scaler.is_enabled() and not math.isfinite(gradient) and scaler.get_scale() > _MIN_SCALE
    if not math.isfinite(loss) or not (math.isfinite(gradient) or overflow):
        problem = f"the loss is {loss} and its gradient {gradient} at update {progress.update}"
        raise divergence_error(run, problem)
    if run.recipe.max_loss_jump is not None and len(run.recent) >= _MIN_LOSSES:
        mean = sum(run.recent) / len(run.recent)
        if loss > mean + run.recipe.max_loss_jump:
            raise divergence_error(
                run,
                f"the loss is {loss:.3f} at update {progress.update}, where the mean of the last "
                f"{len(run.recent)} was {mean:.3f}",
                ", or set max_loss_jump to null",
            )


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


def divergence_error(run: Run, problem: str, remedy: str = "") -> CrystallmError:
    """Return the error of a run that diverged, with remedies."""
    return CrystallmError(
        f"{problem}; the last good state is in {str(run.folder / STATE)!r}: lower learning_rate in {RECIPE} "
        f"beside it and resume{remedy}, or start again"
    )
