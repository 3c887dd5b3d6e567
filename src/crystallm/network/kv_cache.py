"""Key-value cache of ragged rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.network.config import ModelConfig


class KVCache:
    """Keys and values of the cached tokens of each row, preallocated and written in place.

    Rows are ragged: each has its own length, and all start at column 0. The first `n_rows` of the allocated
    rows are in use; `GPT.forward(ids, cache=cache)` expects exactly these and appends its T tokens to each.

    Args:
        capacity: allocated tokens per row; the network's context if None.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        capacity: int | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.capacity = config.context if capacity is None else capacity
        shape = (config.n_layer, rows, config.n_head, self.capacity, config.head_dim)
        # Zeros, not empty: a masked column must not hold a NaN, as 0 * NaN is NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)  # (n_layer, B, H, capacity, D)
        self.values = torch.zeros(shape, device=device, dtype=dtype)  # (n_layer, B, H, capacity, D)
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
            InputError: no such row, or the source is longer than the capacity.
        """
        if not 0 <= row <= min(self.n_rows, self.keys.shape[1] - 1):
            raise InputError(f"{row=} is neither in use nor the next of {self.keys.shape[1]} rows")
        length = source.lengths[source_row]
        if length > self.capacity:
            raise InputError(f"a row of {length} tokens does not fit a cache of {self.capacity}")
        self.keys[:, row, :, :length] = source.keys[:, source_row, :, :length]
        self.values[:, row, :, :length] = source.values[:, source_row, :, :length]
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
            length = self._lengths[mover]
            self.keys[:, hole, :, :length] = self.keys[:, mover, :, :length]
            self.values[:, hole, :, :length] = self.values[:, mover, :, :length]
            self._lengths[hole] = length
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
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros((*old.shape[:3], capacity, old.shape[4]))
            new[:, : self.n_rows, :, : self._longest] = old[:, : self.n_rows, :, : self._longest]
            setattr(self, name, new)
        self.capacity = capacity

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
