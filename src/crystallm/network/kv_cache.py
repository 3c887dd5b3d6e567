"""Key-value cache of ragged rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.network.config import ModelConfig


_BLOCK = 32  # columns that are allocated and copied together


class KVCache:
    """Keys and values of the cached tokens of each row, preallocated and written in place.

    Rows are ragged: each has its own length, and all start at column 0. The first `n_rows` of the allocated
    rows are in use; `GPT.forward(ids, cache=cache)` expects exactly these and appends its T tokens to each.

    Args:
        capacity: tokens per row; the network's context if None. Whole blocks of 32 are allocated.
        tiled: blocks are in the order of `numba_tiles`, for compiled attention alone.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        tiled: bool = False,
    ) -> None:
        self.capacity = config.context if capacity is None else capacity
        self.tiled = tiled
        shape = (config.n_layer, rows, config.n_head, _whole_blocks(self.capacity), config.head_dim)
        self.keys = _zeros(shape, torch.device(device), dtype)  # (n_layer, B, H, capacity, D)
        self.values = _zeros(shape, torch.device(device), dtype)  # (n_layer, B, H, capacity, D)
        self._lengths = [0] * rows
        self.n_rows = rows
        self._set_view()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of cached tokens of each row in use."""
        return tuple(self._lengths[: self.n_rows])

    def _set_view(self) -> None:
        """Derive tensors for the forward pass from lengths on the host (no synchronization with a GPU)."""
        used = self._lengths[: self.n_rows]
        self._longest = max(used, default=0)
        self._even = min(used, default=0) == self._longest
        device = self.keys.device
        self._starts = torch.tensor(used, dtype=torch.long, device=device)  # (B,)
        self._rows = torch.arange(self.n_rows, device=device)  # (B,)

    def fill_row(self, row: int, source: KVCache, source_row: int = 0) -> None:
        """Overwrite `row` with a row of another cache, such as the prefill of a prompt.

        `row` may be `n_rows`, the first unused row, which is then in use.

        Raises:
            InputError: no such row, the source is longer than the capacity, or its blocks have another order.
        """
        if not 0 <= row <= min(self.n_rows, self.keys.shape[1] - 1):
            raise InputError(f"{row=} is neither in use nor the next of {self.keys.shape[1]} rows")
        length = source.lengths[source_row]
        if length > self.capacity:
            raise InputError(f"a row of {length} tokens does not fit a cache of {self.capacity}")
        if source.tiled != self.tiled:
            raise InputError("one of two caches is tiled: create both in the same way")
        width = _whole_blocks(length)
        self.keys[:, row, :, :width] = source.keys[:, source_row, :, :width]
        self.values[:, row, :, :width] = source.values[:, source_row, :, :width]
        self._lengths[row] = length
        self.n_rows = max(self.n_rows, row + 1)
        self._set_view()

    def drop_rows(self, rows: Sequence[int]) -> list[int]:
        """Remove rows and fill the gaps with the last rows, in place.

        Returns:
            For each remaining row, its previous index.
        """
        dropped = set(rows)
        order = [row for row in range(self.n_rows) if row not in dropped]
        kept = len(order)
        holes = [row for row in range(kept) if row in dropped]
        movers = [row for row in order if row >= kept]
        for hole, mover in zip(holes, movers, strict=True):
            width = _whole_blocks(self._lengths[mover])
            self.keys[:, hole, :, :width] = self.keys[:, mover, :, :width]
            self.values[:, hole, :, :width] = self.values[:, mover, :, :width]
            self._lengths[hole] = self._lengths[mover]
        sources = list(range(kept))
        for hole, mover in zip(holes, movers, strict=True):
            sources[hole] = mover
        self.n_rows = kept
        self._set_view()
        return sources

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Use `len(lengths)` rows and truncate each to its length, which discards padding."""
        if len(lengths) > self.keys.shape[1] or max(lengths, default=0) > self.capacity:
            raise InputError(f"{lengths=} do not fit {self.keys.shape[1]} rows of {self.capacity} tokens")
        self.n_rows = len(lengths)
        self._lengths[: self.n_rows] = lengths
        self._set_view()

    def grow(self, capacity: int) -> None:
        """Grow to `capacity` tokens per row and keep the cached tokens. Never shrinks."""
        if capacity <= self.capacity:
            return
        self.capacity = capacity
        width = _whole_blocks(self._longest)
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = _zeros((*old.shape[:3], _whole_blocks(capacity), old.shape[4]), old.device, old.dtype)
            new[:, : self.n_rows, :, :width] = old[:, : self.n_rows, :, :width]
            setattr(self, name, new)

    def positions(self, n_tokens: int) -> Tensor:
        """Return the positions (B, T) of the next `n_tokens` tokens of each row."""
        return self._starts[:, None] + torch.arange(n_tokens, device=self._starts.device)

    def mask(self, n_tokens: int) -> Tensor | None:
        """Return the columns that the next tokens may attend to, bool (B, 1, T, W); None if not needed."""
        if self._longest == 0 or (n_tokens == 1 and self._even):
            return None
        columns = torch.arange(self._longest + n_tokens, device=self._starts.device)  # (W,)
        return columns <= self.positions(n_tokens)[:, None, :, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, H, T, D) of a layer to each row and return all, (B, H, W, D) each."""
        n_tokens = keys.shape[2]
        stop = self._longest + n_tokens
        all_keys, all_values = self.keys[layer, : self.n_rows], self.values[layer, : self.n_rows]
        if self._even:
            all_keys[:, :, self._longest : stop] = keys
            all_values[:, :, self._longest : stop] = values
        elif n_tokens == 1:
            all_keys[self._rows, :, self._starts] = keys[:, :, 0]
            all_values[self._rows, :, self._starts] = values[:, :, 0]
        else:
            columns = self.positions(n_tokens)  # (B, T)
            all_keys[self._rows[:, None], :, columns] = keys.transpose(1, 2)
            all_values[self._rows[:, None], :, columns] = values.transpose(1, 2)
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def put(self, layer: int, rows: Tensor, columns: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write keys and values (N, H, D) of a layer at rows and columns (N)."""
        self.keys[layer][rows, :, columns] = keys
        self.values[layer][rows, :, columns] = values

    def columns(self, layer: int, rows: Tensor | slice, width: int) -> tuple[Tensor, Tensor]:
        """Return the first `width` columns of keys and values (B, H, width, D); a view if rows is a slice."""
        return self.keys[layer, rows, :, :width], self.values[layer, rows, :, :width]

    def advance(self, n_tokens: int) -> None:
        """Add `n_tokens` to the length of each row; called once per forward pass, after the last layer."""
        for row in range(self.n_rows):
            self._lengths[row] += n_tokens
        self._longest += n_tokens
        self._starts += n_tokens


def _whole_blocks(n_columns: int) -> int:
    return -(-n_columns // _BLOCK) * _BLOCK


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return zeros, on a CPU in memory that is not used before it is written.

    Zeros, not empty: a masked column must not hold a NaN, as 0 * NaN is NaN.
    """
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    return torch.from_numpy(np.zeros(shape, f"u{dtype.itemsize}")).view(dtype)
