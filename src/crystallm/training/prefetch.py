"""Batches on their way to the network: read ahead by a thread, and moved to the device without waiting.

Knows arrays and devices, not what is learned from them.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from crystallm.datasets import packing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


Item = TypeVar("Item")

_AHEAD = 2  # items that wait to be taken

_ROUND = 64
"""Targets are filled up to a multiple of this: on a CPU each new shape of a product costs some 35 ms and 7 MB
for a kernel of its own (torch 2.13, a head of 256 by 1,410)."""


@dataclass(frozen=True)
class DeviceBatch:
    """A batch as tensors on its device.

    Attributes:
        ids, positions: (B, T).
        segments: (B, T), or None where each token sees all before it.
        taught: (n) places among the B T tokens that have a target, filled up with place 0; None: all.
        targets: (n) of these; IGNORE where filled up.
        n_taught: targets that count.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor | None
    taught: Tensor | None
    targets: Tensor
    n_taught: int


def fed(batch: packing.Batch, device: torch.device, *, pinned: bool = False) -> DeviceBatch:
    """A batch as tensors.

    The places of targets are found here, in numpy: on a GPU their number would have to be waited for.

    Args:
        batch: arrays.
        device: where to; with `pinned`, memory from which `moved` copies there without waiting.
        pinned: leave the tensors in this machine's memory for now.
    """
    targets = batch.targets.ravel()
    taught, n_taught = None, len(targets)
    if batch.segments is not None:
        places = np.flatnonzero(targets != packing.IGNORE)
        n_taught, more = len(places), -len(places) % _ROUND
        taught = torch.from_numpy(np.pad(places, (0, more)))
        targets = np.pad(targets[places], (0, more), constant_values=packing.IGNORE)
    segments = None if batch.segments is None else torch.from_numpy(batch.segments)
    found = DeviceBatch(
        torch.from_numpy(batch.ids),
        torch.from_numpy(batch.positions),
        segments,
        taught,
        torch.from_numpy(targets),
        n_taught,
    )
    if pinned and device.type == "cuda":
        return _each(found, Tensor.pin_memory)
    return found if pinned else moved(found, device)


def moved(batch: DeviceBatch, device: torch.device) -> DeviceBatch:
    """The batch on a device."""
    if device.type == "cpu":
        return batch
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _each(batch: DeviceBatch, change: Callable[[Tensor], Tensor]) -> DeviceBatch:
    return DeviceBatch(
        change(batch.ids),
        change(batch.positions),
        None if batch.segments is None else change(batch.segments),
        None if batch.taught is None else change(batch.taught),
        change(batch.targets),
        batch.n_taught,
    )


class _End(Generic[Item]):
    """What stands behind the last item: perhaps the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextlib.contextmanager
def ahead(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """Items that a thread makes before they are asked for, while the block lasts; its errors come through."""
    waiting: queue.Queue[Item | _End[Item]] = queue.Queue(maxsize=_AHEAD)
    stop = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                waiting.put(item)
                if stop.is_set():
                    return
        except BaseException as caught:  # noqa: BLE001 - it is raised again where the items are taken
            error = caught
        waiting.put(_End(error))

    def taken() -> Iterator[Item]:
        while True:
            item = waiting.get()
            if not isinstance(item, _End):
                yield item
                continue
            if item.error is not None:
                raise item.error
            return

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        # A thread that still computes when the interpreter ends takes the process down with it (SIGABRT).
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):  # so that the thread is not stuck at a full queue
                waiting.get(timeout=0.01)
