"""Devices, dtypes and threads by name."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from crystallm.errors import CheckpointError, InputError


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device of this name; "auto" is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(f"no such device: {str(device)!r}; try 'cpu', 'cuda' or 'auto'") from error
    try:
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:  # a torch that was built without, a driver that is none
        why = str(error).splitlines()[0][:80]
        raise CheckpointError(
            f"device {str(device)!r} cannot be used ({why}): try 'cpu' or 'auto'"
        ) from error
    return found


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return the dtype of this name; "auto" is float32."""
    names = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in names:
        raise CheckpointError(f"no such dtype: {dtype!r}; use one of {', '.join(names)}")
    return names[dtype]


def device_of(device: str) -> torch.device:
    """The device of that name; `auto` takes a GPU where there is one.

    Raises:
        InputError: there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"no such device: {device!r}; try 'cpu', 'cuda' or 'auto'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"no device {device!r} on this machine; try 'cpu' or 'auto'")
    return found


def devices_of(text: str) -> tuple[str, ...]:
    """The devices that an option names: one, several with commas between, or `all` GPUs of this machine.

    Raises:
        InputError: no GPU, a name that is none, or one that stands there twice.
    """
    if text == "all":
        if not torch.cuda.is_available():
            raise InputError("device = 'all': there is no GPU here; try 'cpu' or 'auto'")
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"device = {text!r}: write each once, such as cuda:0,cuda:1")
    return names


def use_threads(n: int | None) -> int:
    """Let the network compute on so many threads of this process.

    Args:
        n: how many; None: as many as torch takes by itself (`OMP_NUM_THREADS`, or else the cores that this
            process may run on), but no more than a container's share of processors.

    Returns:
        How many there are now.

    Raises:
        InputError: fewer than one.
    """
    if n is None:
        quota = _quota()
        n = torch.get_num_threads()
        if quota < n:
            n = max(1, math.floor(quota))
    if n < 1:
        raise InputError(f"threads = {n}: write a whole number from 1")
    torch.set_num_threads(n)
    return n


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Processors' time that a container may use (Linux, cgroup 2); infinite where nothing is said of it."""
    try:
        most, period = path.read_text(encoding="ascii").split()
        return math.inf if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return math.inf
