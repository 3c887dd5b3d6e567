"""Devices, dtypes and threads by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.errors import InputError, one_line

if TYPE_CHECKING:
    import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device of this name; "auto" is a GPU if there is one.

    Raises:
        InputError: there is no such device, or it cannot be used.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"no such device: {str(device)!r}; try 'cpu', 'cuda' or 'auto'") from error
    if resolved.type == "meta":  # which holds no numbers
        raise InputError("device 'meta' cannot compute: try 'cpu', 'cuda' or 'auto'")
    try:
        torch.empty(0, device=resolved)
    except (AssertionError, RuntimeError) as error:  # torch was built without it, or its driver is missing
        raise InputError(
            f"device {str(device)!r} cannot be used ({one_line(error, 80)}): try 'cpu' or 'auto'"
        ) from error
    return resolved


def energy_device(device: str) -> str:
    """Return the device of energy models: that of the network if it is a CUDA GPU, else the CPU."""
    resolved = resolve_device(device)
    return str(resolved) if resolved.type == "cuda" else "cpu"


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return the dtype of this name; "auto" is float32. Raises InputError: there is no such dtype."""
    import torch

    names = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in names:
        raise InputError(f"no such dtype: {dtype!r}; use one of {', '.join(names)}")
    return names[dtype]


def device_names(text: str) -> tuple[str, ...]:
    """Return the devices of an option: one, several separated by commas, or `all` GPUs of this machine.

    Raises:
        InputError: there is no GPU, or a name is empty or occurs twice.
    """
    if text == "all":
        import torch

        if not torch.cuda.is_available():
            raise InputError("device = 'all': there is no GPU here; try 'cpu' or 'auto'")
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"device = {text!r}: write each once, such as cuda:0,cuda:1")
    return names


def use_threads(n: int | None) -> int:
    """Set the number of threads of the network in this process, and return it.

    Args:
        n: number; None: torch's own choice (`OMP_NUM_THREADS`, or else the cores that this process may run
            on), but no more than a container's share of processors.
    """
    import torch

    if n is None:
        n = max(1, min(torch.get_num_threads(), math.floor(min(_cpu_quota(), 1e6))))
    if n < 1:
        raise InputError(f"threads = {n}: write a whole number from 1")
    torch.set_num_threads(n)
    return n


def _cpu_quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Return how many processors a container may use (Linux, cgroup 2); infinity without a limit."""
    try:
        limit, period = path.read_text(encoding="ascii").split()
        return math.inf if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return math.inf
