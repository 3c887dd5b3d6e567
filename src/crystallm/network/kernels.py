"""Compiled kernels for tensors: on a CPU, in float32 or bfloat16, where numba is installed.

Splits compiled attention over as many threads as torch has. Letters of shapes as in `numba_kernels`.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import LayerNorm

if TYPE_CHECKING:
    from torch import Tensor

    from crystallm.network.config import Ids, ModelConfig

LONG_RUN = 12
"""Longest run for which compiled attention without tiles is faster than torch's (250 columns, D = 64)."""
TILED_DIMS = 64
"""Tiles are for heads of a multiple of this: with 32, one token and 80 columns take 1.5 times as long."""

_MIN_PARALLEL_COLUMNS = 100_000  # columns to read, over all tokens, from which several threads pay off


def available(weight: Tensor) -> bool:
    """Return whether there are kernels for the device and dtype of a weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in {torch.float32, torch.bfloat16}
        and _numba_kernels() is not None
        and _works(weight.dtype)
    )


def can_tile(weight: Tensor, head_dim: int) -> bool:
    """Return whether attention works on tiles, given that there are kernels for a weight."""
    return weight.dtype == torch.bfloat16 and head_dim % TILED_DIMS == 0 and _tiles_work()


class Stream:
    """The stream, and room for the inputs of products, for up to `capacity` tokens.

    Between two products, compiled code adds the last one to the stream and normalizes the sum, attends, or
    applies the gate of the Llama form. Nothing is allocated.

    Args:
        block: of the network.
        config: of the network.
    """

    def __init__(self, capacity: int, block: Any, config: ModelConfig) -> None:
        self.capacity = capacity
        weight = block.ln_1.weight
        widths = config.n_embd, config.n_embd, config.n_embd, block.mlp.c_proj.in_features
        self._tensors: list[Tensor] = [weight.new_zeros(capacity, width) for width in widths]
        self._shape = (3, config.n_head, config.head_dim)
        self.set_size(capacity)

    def set_size(self, n: int) -> None:
        """Use the first n rows of all tensors."""
        self.x: Tensor
        self.x, self._normed, self._attended, self._gated = (tensor[:n] for tensor in self._tensors)
        self._arrays = [array_of(each) for each in (self.x, self._normed, self._attended, self._gated)]

    def norm(self, update: Tensor | None, module: Any) -> Tensor:
        """Add an update (N, C) to the stream and return its norm (N, C), which the next call overwrites."""
        x, normed, *_ = self._arrays
        added = x[:0] if update is None else array_of(update)
        weight, epsilon = array_of(module.weight.detach()), float(module.eps or 0.0)
        if isinstance(module, LayerNorm):
            bias = weight[:0] if module.bias is None else array_of(module.bias.detach())
            _kernels().layer_norm(x, added, weight, bias, epsilon, normed)
        else:
            _kernels().rms_norm(x, added, weight, epsilon, normed)
        return self._normed

    def gate(self, wide: Tensor) -> Tensor:
        """Return SwiGLU (N, M) of (N, 2 M), which the next call overwrites."""
        _kernels().swiglu(array_of(wide), self._arrays[3])
        return self._gated

    def attend(self, qkv: Tensor, rows: RowAttention, keys: Any, values: Any) -> Tensor:
        """Return the attention (N, C) of new tokens from (N, 3 C), which the next call overwrites."""
        heads = self._shape[1:]
        rows(array_of(qkv).reshape(-1, *self._shape), keys, values, self._arrays[2].reshape(-1, *heads))
        return self._attended


class RowAttention:
    """Compiled attention of new tokens over their rows; appends their keys and values.

    Args:
        plan: (3, B) int64: for each row the start of its run among the N, its length, the cached tokens.
        angles: cosines and sines of rotary positions, (2, N, D / 2) float32; None for none.
        tiled: keys and values are in the order of `numba_tiles`.
    """

    def __init__(self, plan: Ids, angles: Any, *, tiled: bool = False) -> None:
        self._plan = plan
        self._tiled = tiled
        self._angles = np.empty((2, 0, 0), np.float32) if angles is None else angles
        self._parts = _parts(plan)

    def __call__(self, qkv: Any, keys: Any, values: Any, out: Any) -> None:
        """Write the attention (N, H, D) to `out`, but without tiles for runs of at most `LONG_RUN`.

        Args:
            qkv: (N or more, 3, H, D) array, see `array_of`, as are the others.
            keys: (B, H, capacity, D), written at the new tokens' columns, as are `values`.
            out: (N or more, H, D).
        """

        def attend_rows(rows: tuple[int, int]) -> None:
            if self._tiled:
                _numba_tiles().attend(qkv, self._angles, keys, values, self._plan, rows, out)
            else:
                _kernels().attend(qkv, self._angles, keys, values, self._plan, LONG_RUN, rows, out)

        if len(self._parts) == 1:
            attend_rows(self._parts[0])
        else:
            list(_threads(len(self._parts)).map(attend_rows, self._parts))


def array_of(tensor: Tensor) -> Any:
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
    return _attends(dtype, 2, tiled=False)


@cache
def _tiles_work() -> bool:
    """Return whether there are tiles and a first call with them succeeds."""
    try:
        from crystallm.network import numba_tiles
    except ImportError:
        return False
    return numba_tiles.permitted() and _attends(torch.bfloat16, TILED_DIMS, tiled=True)


def _attends(dtype: torch.dtype, n_dims: int, *, tiled: bool) -> bool:
    """Return whether one token attends to itself."""
    ones = array_of(torch.ones(1, 3, 1, n_dims, dtype=dtype))
    rows, result = (
        array_of(torch.zeros(1, 1, 32, n_dims, dtype=dtype)),
        torch.zeros(1, 1, n_dims, dtype=dtype),
    )
    try:
        RowAttention(np.array([[0], [1], [0]]), None, tiled=tiled)(ones, rows, rows.copy(), array_of(result))
    except Exception as error:  # noqa: BLE001 - on any failure torch is used instead
        why = " ".join(str(error).split())[:100]
        logging.getLogger(__name__).warning(
            "kernels cannot be compiled, sampling is slower (%s: %s)", type(error).__name__, why
        )
        return False
    return bool((result == 1).all())


def _numba_tiles() -> Any:
    from crystallm.network import numba_tiles

    return numba_tiles


def _kernels() -> Any:
    module = _numba_kernels()
    assert module is not None  # noqa: S101 - callers check `available` first
    return module
