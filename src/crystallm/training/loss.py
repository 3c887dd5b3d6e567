"""What a network has still to learn: its losses on a batch, and on a whole split.

Knows tokens, not crystals, and not how a network learns.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from crystallm.datasets import packing, shards
from crystallm.training import distributed, prefetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from crystallm.network.transformer import GPT
    from crystallm.training.distributed import ProcessGroup

    Features = Callable[..., Tensor]


class Losses(NamedTuple):
    """Validation losses in nats: a token, and a whole crystal (comparable between encodings)."""

    token: float
    crystal: float


class Summed(NamedTuple):
    """Losses of n targets, summed (nats): as they weigh in what is learned, and as they are."""

    weighed: Tensor
    whole: Tensor
    n: int


def summed_loss(
    network: GPT,
    batch: packing.Batch | prefetch.DeviceBatch,
    device: torch.device,
    dtype: str,
    features: Features | None = None,
    *,
    weights: Tensor | None = None,
) -> Summed:
    """Sum of the losses of a batch.

    Args:
        network: whose next-token losses are taken.
        batch: windows of tokens.
        device: of the network.
        dtype: `float32`, `float16`, or else bfloat16 arithmetic.
        features: compiled form of `network.features`, if there is one.
        weights: (V) of the loss of each token; None: all weigh alike.
    """
    batch = prefetch.fed(batch, device) if isinstance(batch, packing.Batch) else prefetch.moved(batch, device)
    with _autocast(device, dtype):
        seen = (features or network.features)(batch.ids, positions=batch.positions, segments=batch.segments)
        seen = seen.flatten(0, 1)  # (B T, C)
        logits = network.lm_head(seen if batch.taught is None else seen[batch.taught])  # (n, V)
    losses = functional.cross_entropy(
        logits.float(), batch.targets, reduction="none", ignore_index=packing.IGNORE
    )
    whole = losses.sum()
    weighed = whole if weights is None else losses @ weights[batch.targets.clamp(min=0)]
    return Summed(weighed, whole.detach(), batch.n_taught)


def _autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if dtype == "float16" else torch.bfloat16)


@torch.no_grad()
def validate(
    network: GPT,
    split: shards.TokenSplit,
    device: torch.device,
    dtype: str = "auto",
    world: ProcessGroup | None = None,
) -> Losses:
    """Losses over all whole crystals of a split that fit the context, without dropout.

    Args:
        network: to judge.
        split: held out.
        device: of the network.
        dtype: as for `summed_loss`.
        world: processes that share the work and get the same result; None for this one alone.
    """
    world = world or distributed.ProcessGroup(device)
    was_training, context = network.training, network.config.context
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64)  # nats, tokens
    with world.together():
        plan = packing.plan(split.lengths, batch_tokens=16384, context=context, rng=None)
        for planned in plan[world.rank :: world.size]:
            _, loss, n = summed_loss(network, planned.fill(split), device, dtype)
            sums += torch.tensor([float(loss), n], dtype=torch.float64)
    network.train(was_training)
    # Alone they stay here: not every device has float64.
    total, n_tokens = (world.sum_(sums.to(device)) if world.size > 1 else sums).tolist()
    n_crystals = int((split.lengths <= context).sum())
    return Losses(total / max(1, n_tokens), total / max(1, n_crystals))
