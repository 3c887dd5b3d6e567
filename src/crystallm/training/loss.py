"""Loss of a batch and of a whole split."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from crystallm.datasets import packing, shards
from crystallm.training import distributed, prefetch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    import numpy.typing as npt

    from crystallm.network.transformer import GPT
    from crystallm.training.distributed import ProcessGroup


class Losses(NamedTuple):
    """Validation losses in nats, per token and per crystal (comparable between languages)."""

    token: float
    crystal: float


class LossSums(NamedTuple):
    """Sums of the losses of n targets in nats, with token weights and without."""

    weighted: Tensor
    unweighted: Tensor
    n: int


def sum_losses(
    network: GPT,
    batch: packing.Batch | prefetch.DeviceBatch,
    device: torch.device,
    dtype: str,
    *,
    weights: Tensor | None = None,
) -> LossSums:
    """Sum the losses of a batch.

    Args:
        dtype: `float32`, `float16`, or else bfloat16 arithmetic.
        weights: (V) weight of the loss of each token; None: equal.
    """
    if isinstance(batch, packing.Batch):
        batch = prefetch.to_tensors(batch, device)
    else:
        batch = prefetch.to_device(batch, device)
    with _autocast(device, dtype):
        x = network.features(
            batch.ids, positions=batch.positions, segments=batch.segments, conditions=batch.conditions
        )
        x = x.flatten(0, 1)  # (B T, C)
        logits = network.lm_head(x if batch.taught is None else x[batch.taught])  # (n, V)
    losses = functional.cross_entropy(
        logits.float(), batch.targets, reduction="none", ignore_index=packing.IGNORE
    )  # (n)
    total = losses.sum()
    weighted = total if weights is None else losses @ weights[batch.targets.clamp(min=0)]
    return LossSums(weighted, total.detach(), batch.n_taught)


def _autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if dtype == "float16" else torch.bfloat16)


@torch.no_grad()
def validate(
    network: GPT,
    split: shards.Split,
    device: torch.device,
    dtype: str = "auto",
    world: ProcessGroup | None = None,
    *,
    values: npt.NDArray[np.float64] | None = None,
) -> Losses:
    """Compute the losses of all crystals of a split that fit the context, without dropout.

    Args:
        values: [n, n_properties] of the crystals, given to the network; None for none.
        world: processes that share the work and get the same result; None for this one only.
    """
    world = world or distributed.ProcessGroup(device)
    was_training, context = network.training, network.config.context
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64)  # nats, tokens
    with world.together(), torch.compiler.set_stance("force_eager"):
        plan = packing.plan(
            split.lengths, batch_tokens=16384, context=context, rng=None, untaught=split.untaught
        )
        for planned in plan[world.rank :: world.size]:
            _, loss, n = sum_losses(network, planned.fill(split, values), device, dtype)
            sums += torch.tensor([float(loss), n], dtype=torch.float64)
    network.train(was_training)
    # One process keeps them on the CPU: not every device has float64.
    total, n_tokens = (world.sum_(sums.to(device)) if world.size > 1 else sums).tolist()
    n_crystals = int((split.lengths <= context).sum())
    return Losses(total / max(1, n_tokens), total / max(1, n_crystals))
