"""What is compiled, for tensors: on a CPU, of float32 or bfloat16, where numba is installed.

Gives compiled attention to several threads where torch has several. Knows tensors and networks, not how the
next token is chosen. Letters of shapes as in `compiled`.
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

    from crystallm.network.attention import Turn
    from crystallm.network.config import Ids


LONG = 12
"""Tokens of a run up to which compiled attention is quicker than torch's (250 columns, D = 64)."""

_SHARED = 100_000  # columns to read, over all tokens, from which on threads share them


def available(weight: Tensor) -> bool:
    """Whether there are kernels for numbers like a network's weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in {torch.float32, torch.bfloat16}
        and _found() is not None
        and _works(weight.dtype)
    )


def norm_of(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A normalisation of (N, C); compiled if torch has none in one pass."""
    if not isinstance(module, nn.RMSNorm):
        return module
    weight, epsilon = _array(module.weight.detach()), float(module.eps or 0.0)

    def norm(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        _kernels().rms_norm(_array(x), weight, epsilon, _array(out))
        return out

    return norm


def between_of(mlp: nn.Module) -> Callable[[Tensor], Tensor]:
    """What stands between the two layers of an MLP; compiled if torch has none in one pass."""
    if not isinstance(mlp, SwiGLU):
        between: Any = mlp.between
        return cast("Callable[[Tensor], Tensor]", between)

    def gate(x: Tensor) -> Tensor:
        out = x.new_empty(len(x), x.shape[1] // 2)
        _kernels().swiglu(_array(x), _array(out))
        return out

    return gate


class RowAttention:
    """Attention of new tokens over their rows, which enters their keys and values.

    Args:
        plan: (3, B) int64: where each row's run starts among the N, its length, the row's tokens before it.
        turn: of rotary positions, (N, ..., D / 2), if any.
    """

    def __init__(self, plan: Ids, turn: Turn | None) -> None:
        self._plan = plan
        self._angles = np.empty((2, 0, 0), np.float32)
        if turn is not None:
            self._angles = torch.stack(turn).flatten(1, -2).float().numpy()  # (2, N, D / 2)
        self._parts = _parts(plan)

    def __call__(self, qkv: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention (N, H, D), without that of runs longer than `LONG`, whose places hold anything.

        Args:
            qkv: (N, 3, H, D).
            keys: (B, H, capacity, D), written at the new tokens' columns.
            values: likewise.
        """
        out = qkv.new_empty(len(qkv), *qkv.shape[2:])
        attend = _kernels().attend
        given, known, told, to = (_array(each) for each in (qkv, keys, values, out))

        def some(rows: tuple[int, int]) -> None:
            attend(given, self._angles, known, told, self._plan, LONG, rows, to)

        if len(self._parts) == 1:
            some(self._parts[0])
        else:
            list(_threads(len(self._parts)).map(some, self._parts))
        return out


def _array(tensor: Tensor) -> Any:
    """The same memory for numpy, which does not know bfloat16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _parts(plan: Ids) -> list[tuple[int, int]]:
    """Which rows each of torch's threads takes, so that all have about the same number of columns to read."""
    work = np.cumsum(plan[1] * (plan[1] + plan[2]))
    n_threads = torch.get_num_threads() if work[-1] >= _SHARED else 1
    bounds = np.searchsorted(work, work[-1] * np.arange(1, n_threads) / n_threads).tolist()
    return list(pairwise((0, *bounds, len(work))))


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "attention")


@cache
def _found() -> Any:
    try:
        from crystallm.network import numba_kernels
    except ImportError:  # numba is not for each Python and each machine
        return None
    return numba_kernels


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether a first call goes well: compilers fail where nobody has tried them, as do their caches."""
    ones = torch.ones(1, 3, 1, 2, dtype=dtype)
    rows = torch.zeros(1, 1, 1, 2, dtype=dtype)
    try:
        found = RowAttention(np.array([[0], [1], [0]]), None)(ones, rows, rows.clone())
    except Exception as error:  # noqa: BLE001 - whatever it is, torch does without
        why = " ".join(str(error).split())[:100]
        logging.getLogger(__name__).warning(
            "nothing is compiled, writing takes longer (%s: %s)", type(error).__name__, why
        )
        return False
    return bool((found == 1).all())


def _kernels() -> Any:
    found = _found()
    assert found is not None  # noqa: S101 - who asks has been told that it is available
    return found
