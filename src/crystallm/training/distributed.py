"""Processes that train one network: sums over all of them, and failures that end them all with one line.

`torchrun` starts the processes and tells each its number in the environment; without it there is one. Knows
tensors and messages, not networks.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from crystallm.errors import CrystallmError, InputError
from crystallm.execution.devices import resolve_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_LONGEST = 600  # bytes of a message that one process tells the others


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, as one of them sees them.

    Attributes:
        device: on which this process computes.
        rank: number of this process, from 0; the first alone writes and reports.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Put the sum over all processes in place of a tensor.

        Raises:
            CrystallmError: a process has died.
        """
        if self.size > 1:
            with _told("sum"):
                dist.all_reduce(tensor)
        return tensor

    def of_first(self, number: float) -> float:
        """The number that the first process gives."""
        if self.size == 1:
            return number
        shared = torch.tensor([number if self.first else 0.0], dtype=torch.float64, device=self.device)
        return float(self.sum_(shared))

    def equalise_(self, tensors: Sequence[Tensor]) -> None:
        """Put the first process's tensors in place of those of the others."""
        if self.size > 1:
            with _told("send"):
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block without sums that ends well on all processes, or with the same error on all.

        Raises:
            InputError, CrystallmError: what went wrong on the first process where something did.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if self.size == 1:
                raise
            failure = error
        if self.size > 1:
            self.agree(failure)

    def agree(self, failure: Exception | None) -> None:
        """Raise the same error on all processes if one of them failed; all call this at the same place.

        Raises:
            InputError, CrystallmError: the first failure.
        """
        said = torch.zeros(self.size, _LONGEST, dtype=torch.uint8)
        codes = torch.zeros(self.size, dtype=torch.long)
        if failure is not None:
            known = isinstance(failure, CrystallmError)
            text = str(failure) if known else f"internal error, {type(failure).__name__}: {failure}"
            content = " ".join(text.split()).encode()[:_LONGEST]
            said[self.rank, : len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            codes[self.rank] = failure.exit_code if isinstance(failure, CrystallmError) else 1
        said, codes = said.to(self.device), codes.to(self.device)
        self.sum_(said)
        self.sum_(codes)
        for rank, code in enumerate(codes.tolist()):
            if code:
                text = bytes(said[rank].tolist()).rstrip(b"\0").decode(errors="replace")
                kind = InputError if code == InputError.exit_code else CrystallmError
                raise kind(text if rank == 0 else f"process {rank}: {text}") from failure


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = " ".join(str(error).split())[:120]
        raise CrystallmError(
            f"another process of this run has ended, so that none can {what} ({why}): start all again with "
            "--resume"
        ) from error


def rank() -> int:
    """Number of this process among those that `torchrun` started; 0 without it."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def size() -> int:
    """Processes that `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def world(device: str = "auto") -> Iterator[ProcessGroup]:
    """The processes of this run, connected for the length of the block.

    Args:
        device: 'cpu', 'cuda' or 'auto'; of several processes each takes the GPU of its own number.

    Raises:
        InputError: there is no such device, or not one for each process.
        CrystallmError: the processes do not find each other.
    """
    if size() == 1:
        yield ProcessGroup(resolve_device(device))
        return
    place = int(os.environ.get("LOCAL_RANK", "0"))
    where = resolve_device(device)
    if where.type == "cuda":
        if where.index is not None or place >= torch.cuda.device_count():
            raise InputError(
                f"device {device!r} for process {place} of this machine, which has "
                f"{torch.cuda.device_count()} GPUs: give 'cuda', and torchrun no more processes than GPUs"
            )
        where = torch.device("cuda", place)
        torch.cuda.set_device(where)
    owned = not dist.is_initialized()
    if owned:
        try:
            dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise CrystallmError(
                f"the {size()} processes do not find each other ({why}): start them with `torchrun "
                "--nproc-per-node N -m crystallm train ...`"
            ) from error
    try:
        yield ProcessGroup(where, rank(), size())
    finally:
        if owned:
            dist.destroy_process_group()
