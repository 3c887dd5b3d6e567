"""Pack token sequences into batches for training.

A data set folder holds, for each split, `SPLIT.bin` (ids of all crystals one after another, little-endian
uint16) and `SPLIT.idx.npy` (int64 [n + 1], the first id of each crystal, and the end), and `dataset.json`
(language, vocabulary size, counts).

Packed windows hold whole crystals side by side. Attention stays inside each crystal and positions restart at
its first token, so that a window is several independent sequences. Short crystals go into short windows, as
the cost of attention grows with the square of the window. Otherwise a window is a piece of the stream, in
which each token sees all before it. Needs numpy alone. Which crystals an epoch holds is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from crystallm.datasets.shards import Ids, Split, TokenSplit

IGNORE = -100  # target of a position without a loss; the value that torch's cross entropy ignores
PADDING = -1  # segment of padding
SHORTEST_WINDOW = 64
OPEN_WINDOWS = 64  # number of windows that `pack` fills at a time


@dataclass(frozen=True)
class Batch:
    """Windows of tokens, all [n_windows, window] integers.

    Attributes:
        ids: tokens; 0 in padding.
        targets: the next token (of the same crystal, where crystals are packed); IGNORE where there is none,
            and in tokens that are read, not learned.
        positions: within the crystal or the piece, from 0.
        segments: number of the crystal within its window, PADDING in padding; None where each token sees all
            before it.
        values: [n_windows, n_crystals of a window, n_properties] of its crystals by their segments, NaN where
            unknown; None where no properties are used.
    """

    ids: Ids
    targets: Ids
    positions: Ids
    segments: Ids | None
    values: npt.NDArray[np.float32] | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens without padding."""
        return self.ids.size if self.segments is None else int((self.segments != PADDING).sum())


@dataclass(frozen=True)
class PlannedBatch:
    """A batch before its tokens are read.

    Attributes:
        window: number of tokens of a window.
        crystals: indices of the crystals of each window; None for pieces of the stream.
        offsets: [n_windows] start of each piece; None for packed crystals.
        n_taught: of these, those with a target.
    """

    window: int
    crystals: Sequence[Sequence[int]] | None
    offsets: Ids | None
    n_tokens: int
    n_taught: int

    def fill(self, split: Split, values: npt.NDArray[np.float64] | None = None) -> Batch:
        """Read the tokens and return the batch.

        Args:
            split: with the crystals.
            values: [n, n_properties] of all crystals of the split; for packed crystals only.
        """
        if self.crystals is not None:
            batch = fill(split, self.crystals, self.window)
            return batch if values is None else replace(batch, values=gather(values, self.crystals))
        assert self.offsets is not None  # noqa: S101 - one of the two is there
        ids = split.pieces(self.offsets, self.window + 1)
        positions = np.broadcast_to(np.arange(self.window), (len(ids), self.window)).copy()
        return Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), positions, None)


def pack(lengths: Ids, order: Ids, window: int) -> list[list[int]]:
    """Pack crystals into windows of at most `window` tokens, each into the fullest window with room.

    At most OPEN_WINDOWS are open, and the fullest of them closes first: the order stays close to random.

    Args:
        lengths: [n] number of tokens of each crystal; those in `order` fit a window.
        order: indices of the crystals to pack.

    Returns:
        Indices of the crystals of each window.
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


def fill(split: Split, windows: Sequence[Sequence[int]], window: int) -> Batch:
    """Return the arrays of packed windows."""
    shape = (len(windows), window)
    ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    targets, segments = np.full(shape, IGNORE, dtype=np.int64), np.full(shape, PADDING, dtype=np.int64)
    untaught = split.untaught
    for row, crystals in enumerate(windows):
        start = 0
        for number, crystal in enumerate(crystals):
            tokens = split.crystal(crystal)
            end = start + len(tokens)
            ids[row, start:end] = tokens
            n_read = int(untaught[crystal])
            targets[row, start + n_read : end - 1] = tokens[n_read + 1 :]
            positions[row, start:end] = np.arange(len(tokens))
            segments[row, start:end] = number
            start = end
    return Batch(ids, targets, positions, segments)


def gather(values: npt.NDArray[np.float64], windows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """Return the values [n_windows, most crystals of a window, n_properties] of the crystals of windows."""
    most = max(map(len, windows))
    gathered = np.full((len(windows), most, values.shape[1]), np.nan, dtype=np.float32)
    for row, crystals in enumerate(windows):
        gathered[row, : len(crystals)] = values[list(crystals)]
    return gathered


def hide(values: npt.NDArray[np.float32], rate: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Replace values by NaN: all of a share `rate` of the crystals, and this share of the others' values.

    Args:
        values: [n_windows, n_crystals, n_properties].
        rate: from 0 to 1.
        rng: draws what is hidden.
    """
    hidden = (rng.random(values.shape[:2]) < rate)[..., None] | (rng.random(values.shape) < rate)
    return np.where(hidden, np.float32(np.nan), values)


def plan(
    lengths: Ids,
    *,
    batch_tokens: int,
    context: int,
    rng: np.random.Generator | None,
    chosen: Ids | None = None,
    untaught: Ids | None = None,
) -> list[PlannedBatch]:
    """Plan batches of packed crystals.

    Args:
        lengths: [n] number of tokens of each crystal.
        batch_tokens: tokens of a batch, padding included; the number of windows follows from their size. A
            longer window is a batch of its own.
        context: crystals longer than this are left out.
        rng: of the order; None keeps windows in the order of packing.
        chosen: indices of the crystals to pack, possibly repeated; None for all.
        untaught: [n] number of the first tokens of each crystal that have no target; None: none.
    """
    chosen = np.arange(len(lengths)) if chosen is None else chosen
    sizes = lengths[chosen]
    planned: list[PlannedBatch] = []
    shorter = 0
    for window in _window_sizes(context):
        members = chosen[(sizes > shorter) & (sizes <= window)]
        if rng is not None:
            members = rng.permutation(members)
        packed = pack(lengths, members, window)
        if rng is not None:
            packed = [packed[i] for i in rng.permutation(len(packed))]
        n_rows = max(1, batch_tokens // window)
        for i in range(0, len(packed), n_rows):
            rows = packed[i : i + n_rows]
            crystals = np.concatenate(rows)
            n_tokens = int(lengths[crystals].sum())
            n_read = len(crystals) + (0 if untaught is None else int(untaught[crystals].sum()))
            planned.append(PlannedBatch(window, rows, None, n_tokens, n_tokens - n_read))
        shorter = window
    return planned if rng is None else [planned[i] for i in rng.permutation(len(planned))]


def _window_sizes(context: int) -> list[int]:
    """Return ascending window sizes up to the context: SHORTEST_WINDOW, then four for each doubling."""
    sizes, octave = [min(SHORTEST_WINDOW, context)], SHORTEST_WINDOW
    while sizes[-1] < context:
        sizes += [min(octave * quarters // 4, context) for quarters in (5, 6, 7, 8)]
        octave *= 2
    return sorted(set(sizes))


def cut(offsets: Ids, *, batch_tokens: int, window: int) -> list[PlannedBatch]:
    """Plan batches of pieces of the stream, in the order of their offsets."""
    n_rows = max(1, batch_tokens // window)
    parts = [offsets[i : i + n_rows] for i in range(0, len(offsets), n_rows)]
    return [PlannedBatch(window, None, part, len(part) * window, len(part) * window) for part in parts]


def batches(
    split: TokenSplit, *, batch_tokens: int, context: int, seed: int, epoch: int, shuffle: bool = True
) -> Iterator[Batch]:
    """Yield the batches of one pass over a split in packed windows, in an order given by (seed, epoch).

    Args:
        shuffle: False keeps windows in the order of packing.
    """
    rng = np.random.default_rng([seed, epoch]) if shuffle else None
    for planned in plan(split.lengths, batch_tokens=batch_tokens, context=context, rng=rng):
        yield planned.fill(split)
