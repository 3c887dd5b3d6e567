"""Devices, dtypes and threads by name."""

from __future__ import annotations

import torch

from crystallm.errors import CheckpointError


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
