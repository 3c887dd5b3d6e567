"""Prefetch batches in a thread and move them to the device without waiting."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from crystallm.datasets import packing

Item = TypeVar("Item")
_QUEUE_SIZE = 2  # items made before they are needed
_ROUND = 64
"""Targets are padded to a multiple of this: on a CPU each new shape of a product costs about 35 ms and 7 MB
for its own kernel (torch 2.13, a head of 256 by 1,410)."""


@dataclass(frozen=True)
class DeviceBatch:
    """A batch as tensors on its device.

    Attributes:
        ids: (B, T).
        positions: (B, T).
        segments: (B, T), or None where each token attends to all before it.
        taught: (n) indices among the B T tokens that have a target, padded with 0; None: all.
        targets: (n) of these; IGNORE in padding.
        n_taught: number of targets without padding.
        conditions: (B, S, P) values of the properties of each segment, NaN where unknown; None for none.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor | None
    taught: Tensor | None
    targets: Tensor
    n_taught: int
    conditions: Tensor | None = None


def to_tensors(batch: packing.Batch, device: torch.device, *, pinned: bool = False) -> DeviceBatch:
    """Convert a batch to tensors.

    Indices of targets are computed here, in numpy: on a GPU, their number would need a synchronization.

    Args:
        device: of the tensors; with `pinned`, of a later `to_device`.
        pinned: keep the tensors in host memory, pinned for a GPU, from which `to_device` copies without
            waiting.
    """
    targets = batch.targets.ravel()
    taught, n_taught = None, len(targets)
    if batch.segments is not None:
        indices = np.flatnonzero(targets != packing.IGNORE)
        n_taught, n_padding = len(indices), -len(indices) % _ROUND
        taught = torch.from_numpy(np.pad(indices, (0, n_padding)))
        targets = np.pad(targets[indices], (0, n_padding), constant_values=packing.IGNORE)
    segments = None if batch.segments is None else torch.from_numpy(batch.segments)
    tensors = DeviceBatch(
        torch.from_numpy(batch.ids),
        torch.from_numpy(batch.positions),
        segments,
        taught,
        torch.from_numpy(targets),
        n_taught,
        None if batch.values is None else torch.from_numpy(batch.values),
    )
    if pinned and device.type == "cuda":
        return _map_tensors(tensors, Tensor.pin_memory)
    return tensors if pinned else to_device(tensors, device)


def to_device(batch: DeviceBatch, device: torch.device) -> DeviceBatch:
    """Move a batch to a device."""
    if device.type == "cpu":
        return batch
    return _map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _map_tensors(batch: DeviceBatch, change: Callable[[Tensor], Tensor]) -> DeviceBatch:
    return DeviceBatch(
        change(batch.ids),
        change(batch.positions),
        None if batch.segments is None else change(batch.segments),
        None if batch.taught is None else change(batch.taught),
        change(batch.targets),
        batch.n_taught,
        None if batch.conditions is None else change(batch.conditions),
    )


class _End(Generic[Item]):
    """Marks the end of the items, with the error that ended them, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextlib.contextmanager
def prefetched(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """Make items in a thread before they are needed, within a block; errors are raised on iteration."""
    waiting: queue.Queue[Item | _End[Item]] = queue.Queue(maxsize=_QUEUE_SIZE)
    stop = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                waiting.put(item)
                if stop.is_set():
                    return
        except BaseException as caught:  # noqa: BLE001 - raised again on iteration
            error = caught
        waiting.put(_End(error))

    def iterate() -> Iterator[Item]:
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
        yield iterate()
    finally:
        stop.set()
        # A thread still computing at the end of the interpreter aborts the process (SIGABRT).
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):  # unblocks a thread waiting on a full queue
                waiting.get(timeout=0.01)
