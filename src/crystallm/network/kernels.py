"""Compiled kernels for tensors: on a CPU, in float32 or bfloat16, where numba is installed.

Splits compiled attention over as many threads as torch has. Letters of shapes as in `numba_kernels`.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from crystallm.network.transformer import SwiGLU

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from crystallm.network.attention import Rotation
    from crystallm.network.config import Ids

LONG_RUN = 12
"""Longest run for which compiled attention is faster than torch's (250 columns, D = 64)."""

_MIN_PARALLEL_COLUMNS = 100_000  # columns to read, over all tokens, from which several threads pay off


def available(weight: Tensor) -> bool:
    """Return whether there are kernels for the device and dtype of a weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in {torch.float32, torch.bfloat16}
        and _numba_kernels() is not None
        and _works(weight.dtype)
    )


def norm_of(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the normalization of (N, C); compiled if torch has no fused kernel."""
    if not isinstance(module, nn.RMSNorm):
        return module
    weight, epsilon = _array(module.weight.detach()), float(module.eps or 0.0)

    def norm(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        _kernels().rms_norm(_array(x), weight, epsilon, _array(out))
        return out

    return norm


def activation_of(mlp: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the activation between the two layers of an MLP; compiled if torch has no fused kernel."""
    if not isinstance(mlp, SwiGLU):
        activate: Any = mlp.activate
        return cast("Callable[[Tensor], Tensor]", activate)

    def gate(x: Tensor) -> Tensor:
        out = x.new_empty(len(x), x.shape[1] // 2)
        _kernels().swiglu(_array(x), _array(out))
        return out

    return gate


class RowAttention:
    """Compiled attention of new tokens over their rows; appends their keys and values.

    Args:
        plan: (3, B) int64: for each row the start of its run among the N, its length, the cached tokens.
        rotation: of rotary positions, (N, ..., D / 2), if any.
    """

    def __init__(self, plan: Ids, rotation: Rotation | None) -> None:
        self._plan = plan
        self._angles = np.empty((2, 0, 0), np.float32)
        if rotation is not None:
            self._angles = torch.stack(rotation).flatten(1, -2).float().numpy()  # (2, N, D / 2)
        self._parts = _parts(plan)

    def __call__(self, qkv: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the attention (N, H, D); entries of runs longer than `LONG_RUN` are undefined.

        Args:
            qkv: (N, 3, H, D).
            keys: (B, H, capacity, D), written at the new tokens' columns.
        """
        out = qkv.new_empty(len(qkv), *qkv.shape[2:])
        attend = _kernels().attend
        inputs, known_keys, known_values, result = (_array(each) for each in (qkv, keys, values, out))

        def attend_rows(rows: tuple[int, int]) -> None:
            attend(inputs, self._angles, known_keys, known_values, self._plan, LONG_RUN, rows, result)

        if len(self._parts) == 1:
            attend_rows(self._parts[0])
        else:
            list(_threads(len(self._parts)).map(attend_rows, self._parts))
        return out


def _array(tensor: Tensor) -> Any:
    """Return a numpy view; bfloat16, which numpy lacks, as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _parts(plan: Ids) -> list[tuple[int, int]]:
    """Split the rows among torch's threads, with about equal numbers of columns to read."""
    work = np.cumsum(plan[1] * (plan[1] + plan[2]))
    n_threads = torch.get_num_threads() if work[-1] >= _MIN_PARALLEL_COLUMNS else 1
    bounds = np.searchsorted(work, work[-1] * np.arange(1, n_threads) / n_threads).tolist()
    return list(pairwise((0, *bounds, len(work))))


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "attention")


@cache
def _numba_kernels() -> Any:
    try:
        from crystallm.network import numba_kernels
    except ImportError:  # numba does not support every Python and machine
        return None
    return numba_kernels


@cache
def _works(dtype: torch.dtype) -> bool:
    """Return whether a first call succeeds: compilation can fail on untested machines."""
    ones = torch.ones(1, 3, 1, 2, dtype=dtype)
    rows = torch.zeros(1, 1, 1, 2, dtype=dtype)
    try:
        result = RowAttention(np.array([[0], [1], [0]]), None)(ones, rows, rows.clone())
    except Exception as error:  # noqa: BLE001 - on any failure torch is used instead
        why = " ".join(str(error).split())[:100]
        logging.getLogger(__name__).warning(
            "kernels cannot be compiled, sampling is slower (%s: %s)", type(error).__name__, why
        )
        return False
    return bool((result == 1).all())


def _kernels() -> Any:
    module = _numba_kernels()
    assert module is not None  # noqa: S101 - callers check `available` first
    return module
