"""Processes that train one network: sums over all of them, and errors that end them all.

`torchrun` starts the processes and gives each its rank in the environment; without it there is one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from crystallm.errors import CrystallmError, InputError
from crystallm.execution.devices import resolve_device

_MESSAGE_BYTES = 600  # maximum length of an error message between processes


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: of this process, from 0; only the first writes and reports.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes. Raises CrystallmError: a process has died."""
        if self.size > 1:
            with _peer_errors("sum"):
                dist.all_reduce(tensor)
        return tensor

    def from_first(self, number: float) -> float:
        """Return the first process's number on all processes."""
        if self.size == 1:
            return number
        shared = torch.tensor([number if self.first else 0.0], dtype=torch.float64, device=self.device)
        return float(self.sum_(shared))

    def equalize_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.size > 1:
            with _peer_errors("send"):
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run a block without sums that succeeds on all processes, or raises the same error on all.

        Raises:
            InputError, CrystallmError: of the lowest rank that failed.
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
        """Raise the same error on all processes if one of them failed; all must call this.

        Raises:
            InputError, CrystallmError: of the lowest rank that failed.
        """
        messages = torch.zeros(self.size, _MESSAGE_BYTES, dtype=torch.uint8)
        codes = torch.zeros(self.size, dtype=torch.long)
        if failure is not None:
            known = isinstance(failure, CrystallmError)
            text = str(failure) if known else f"internal error, {type(failure).__name__}: {failure}"
            content = " ".join(text.split()).encode()[:_MESSAGE_BYTES]
            messages[self.rank, : len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            codes[self.rank] = failure.exit_code if isinstance(failure, CrystallmError) else 1
        messages, codes = messages.to(self.device), codes.to(self.device)
        self.sum_(messages)
        self.sum_(codes)
        for rank, code in enumerate(codes.tolist()):
            if code:
                text = bytes(messages[rank].tolist()).rstrip(b"\0").decode(errors="replace")
                kind = InputError if code == InputError.exit_code else CrystallmError
                raise kind(text if rank == 0 else f"process {rank}: {text}") from failure


@contextlib.contextmanager
def _peer_errors(action: str) -> Iterator[None]:
    """Turn torch's error about a peer that has ended into one line."""
    try:
        yield
    except RuntimeError as error:
        why = " ".join(str(error).split())[:120]
        raise CrystallmError(
            f"another process of this run has ended, so that none can {action} ({why}): start all again with "
            "--resume"
        ) from error


def rank() -> int:
    """Return the rank of this process under `torchrun`; 0 without it."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def size() -> int:
    """Return the number of processes of `torchrun`; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[ProcessGroup]:
    """Connect the processes of this run within a block.

    Args:
        device: 'cpu', 'cuda' or 'auto'; each of several processes uses the GPU of its local rank.

    Raises:
        InputError: there is no such device, or not one for each process.
    """
    if size() == 1:
        yield ProcessGroup(resolve_device(device))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    resolved = resolve_device(device)
    if resolved.type == "cuda":
        if resolved.index is not None or local_rank >= torch.cuda.device_count():
            raise InputError(
                f"device {device!r} for process {local_rank} of this machine, which has "
                f"{torch.cuda.device_count()} GPUs: give 'cuda', and torchrun no more processes than GPUs"
            )
        resolved = torch.device("cuda", local_rank)
        torch.cuda.set_device(resolved)
    owned = not dist.is_initialized()
    if owned:
        try:
            dist.init_process_group("nccl" if resolved.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise CrystallmError(
                f"the {size()} processes cannot connect ({why}): start them with `torchrun "
                "--nproc-per-node N -m crystallm train ...`"
            ) from error
    try:
        yield ProcessGroup(resolved, rank(), size())
    finally:
        if owned:
            dist.destroy_process_group()
