"""Token shards for training: a folder of flat streams, and batches out of it.

A data set folder holds, for each split, `SPLIT.bin` (ids of all crystals one after another, little-endian
uint16) and `SPLIT.idx.npy` (int64 [n + 1], where each crystal begins and the last ends), and `dataset.json`
(language, vocabulary size, counts).

Packing: whole crystals stand side by side in windows; attention is kept inside each crystal and positions
restart at its beginning, so that a window is many independent texts. Short crystals go into short windows,
since attention costs the square of the window. Or a window is a piece of the stream, in which each token sees
all before it. Needs numpy alone; knows neither crystals nor networks, nor which crystals an epoch holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.datasets.shards import ConcatenatedSplit, Ids, TokenSplit


IGNORE = -100  # target of a position that teaches nothing; what torch's cross entropy ignores

PADDING = -1  # segment of padding

SHORTEST_WINDOW = 64

OPEN_WINDOWS = 64  # that `pack` fills at a time


@dataclass(frozen=True)
class Batch:
    """Windows of tokens, all [n_windows, window] integers.

    Attributes:
        ids: tokens; 0 in padding.
        targets: the next token (of the same crystal, where crystals are packed); IGNORE where there is none.
        positions: place within the crystal or the piece, from 0.
        segments: number of the crystal within its window, PADDING in padding; None where each token sees all
            before it.
    """

    ids: Ids
    targets: Ids
    positions: Ids
    segments: Ids | None

    @property
    def n_tokens(self) -> int:
        """Tokens that are no padding."""
        return self.ids.size if self.segments is None else int((self.segments != PADDING).sum())


@dataclass(frozen=True)
class PlannedBatch:
    """A batch before its tokens are read.

    Attributes:
        window: tokens of a window.
        crystals: numbers of those of each window; None for pieces of the stream.
        offsets: [n_windows] where the pieces begin; None for packed crystals.
        n_tokens: that are no padding.
        n_taught: of these, those with a target.
    """

    window: int
    crystals: Sequence[Sequence[int]] | None
    offsets: Ids | None
    n_tokens: int
    n_taught: int

    def fill(self, split: TokenSplit | ConcatenatedSplit) -> Batch:
        """Read the tokens."""
        if self.crystals is not None:
            return fill(split, self.crystals, self.window)
        assert self.offsets is not None  # noqa: S101 - one of the two is there
        ids = split.pieces(self.offsets, self.window + 1)
        positions = np.broadcast_to(np.arange(self.window), (len(ids), self.window)).copy()
        return Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), positions, None)


def pack(lengths: Ids, order: Ids, window: int) -> list[list[int]]:
    """Crystals (numbers in `order`) into windows of at most `window` tokens, each into the fullest with room.

    At most OPEN_WINDOWS stand open, and the fullest of them closes first: order stays close to random.

    Args:
        lengths: [n] tokens of each crystal; those in `order` fit a window.
        order: numbers of the crystals to pack.
        window: tokens of a window.

    Returns:
        Numbers of the crystals of each window.
    """
    open_windows: list[tuple[int, list[int]]] = []
    closed: list[list[int]] = []
    for crystal in order.tolist():
        length = int(lengths[crystal])
        fits = [i for i, (room, _) in enumerate(open_windows) if room >= length]
        if fits:
            best = min(fits, key=lambda i: open_windows[i][0])
            room, content = open_windows.pop(best)
            content.append(crystal)
        else:
            room, content = window, [crystal]
        open_windows.append((room - length, content))
        if len(open_windows) > OPEN_WINDOWS:
            fullest = min(range(len(open_windows)), key=lambda i: open_windows[i][0])
            closed.append(open_windows.pop(fullest)[1])
    return closed + [content for _, content in open_windows]


def fill(split: TokenSplit | ConcatenatedSplit, windows: Sequence[Sequence[int]], window: int) -> Batch:
    """Arrays of packed windows."""
    shape = (len(windows), window)
    ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    targets, segments = np.full(shape, IGNORE, dtype=np.int64), np.full(shape, PADDING, dtype=np.int64)
    for row, crystals in enumerate(windows):
        at = 0
        for number, crystal in enumerate(crystals):
            tokens = split.crystal(crystal)
            end = at + len(tokens)
            ids[row, at:end] = tokens
            targets[row, at : end - 1] = tokens[1:]
            positions[row, at:end] = np.arange(len(tokens))
            segments[row, at:end] = number
            at = end
    return Batch(ids, targets, positions, segments)


def plan(
    lengths: Ids,
    *,
    batch_tokens: int,
    context: int,
    rng: np.random.Generator | None,
    chosen: Ids | None = None,
) -> list[PlannedBatch]:
    """Batches of packed crystals.

    Args:
        lengths: [n] tokens of each crystal.
        batch_tokens: tokens a batch, padding included; the number of windows follows from their size. A
            window that is longer makes a batch of its own.
        context: crystals longer than this are left out.
        rng: of the order; None keeps windows in the order of packing.
        chosen: numbers of the crystals to pack, any of them several times; all if None.
    """
    chosen = np.arange(len(lengths)) if chosen is None else chosen
    sizes = lengths[chosen]
    found: list[PlannedBatch] = []
    shorter, window = 0, min(SHORTEST_WINDOW, context)
    while shorter < context:
        members = chosen[(sizes > shorter) & (sizes <= window)]
        if rng is not None:
            members = rng.permutation(members)
        packed = pack(lengths, members, window)
        if rng is not None:
            packed = [packed[i] for i in rng.permutation(len(packed))]
        n_rows = max(1, batch_tokens // window)
        for i in range(0, len(packed), n_rows):
            rows = packed[i : i + n_rows]
            n_crystals = sum(map(len, rows))
            n_tokens = int(lengths[np.concatenate(rows)].sum())
            found.append(PlannedBatch(window, rows, None, n_tokens, n_tokens - n_crystals))
        shorter, window = window, min(2 * window, context) if window < context else context + 1
    return found if rng is None else [found[i] for i in rng.permutation(len(found))]


def cut(offsets: Ids, *, batch_tokens: int, window: int) -> list[PlannedBatch]:
    """Batches of pieces of the stream, in the order of their offsets."""
    n_rows = max(1, batch_tokens // window)
    parts = [offsets[i : i + n_rows] for i in range(0, len(offsets), n_rows)]
    return [PlannedBatch(window, None, part, len(part) * window, len(part) * window) for part in parts]


def batches(
    split: TokenSplit, *, batch_tokens: int, context: int, seed: int, epoch: int, shuffle: bool = True
) -> Iterator[Batch]:
    """One pass over a split in packed windows, in an order that (seed, epoch) alone decides.

    Args:
        split: the crystals.
        batch_tokens: tokens a batch, as for `plan`.
        context: crystals longer than this are left out.
        seed: of the order.
        epoch: number of the pass; each has its own order.
        shuffle: False keeps windows in the order of packing.
    """
    rng = np.random.default_rng([seed, epoch]) if shuffle else None
    for planned in plan(split.lengths, batch_tokens=batch_tokens, context=context, rng=rng):
        yield planned.fill(split)
