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

import json
import os
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Ids = npt.NDArray[np.int64]

FACTS = "dataset.json"
EQUIVALENTS = (
    "equivalents"  # split with other descriptions of the crystals of `train`, as many of each in turn
)
IGNORE = -100  # target of a position that teaches nothing; what torch's cross entropy ignores
PADDING = -1  # segment of padding
SHORTEST_WINDOW = 64
OPEN_WINDOWS = 64  # that `pack` fills at a time
MAX_VOCABULARY = 65536  # ids are uint16


class SplitWriter:
    """Writes the crystals of a split as one stream and its index, crystal by crystal.

    Both files take their place when the `with` block ends well; before, and after an error, old ones stand.

    Args:
        folder: of the data set.
        split: its name.

    Attributes:
        n_crystals, n_tokens: written so far.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._stream = folder / f"{split}.bin"
        self._index = folder / f"{split}.idx.npy"
        self._new = folder / f".{split}.bin.tmp"
        self._lengths = array("q")
        self.n_tokens = 0

    @property
    def n_crystals(self) -> int:
        """Crystals written so far."""
        return len(self._lengths)

    def add(self, ids: bytes) -> None:
        """Write a crystal, its ids as little-endian uint16."""
        self._file.write(ids)
        self._lengths.append(len(ids) // 2)
        self.n_tokens += len(ids) // 2

    def __enter__(self) -> Self:
        self._file = self._new.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        if kind is not None:
            self._new.unlink(missing_ok=True)
            return
        starts = np.cumsum([0, *self._lengths], dtype=np.int64)
        new_index = self._index.with_name(f".{self._index.name}.tmp")
        with new_index.open("wb") as file:
            np.save(file, starts)
            file.flush()
            os.fsync(file.fileno())
        self._new.replace(self._stream)
        new_index.replace(self._index)


@dataclass(frozen=True)
class Split:
    """The crystals of one split.

    Attributes:
        stream: all ids, uint16, mapped from disk.
        starts: [n + 1] where each crystal begins, and the end.
        language: name of the language.
        vocab_size: number of tokens of the language.
    """

    stream: npt.NDArray[np.uint16]
    starts: Ids
    language: str
    vocab_size: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def crystal(self, i: int) -> Ids:
        """Ids of crystal i."""
        return self.stream[self.starts[i] : self.starts[i + 1]].astype(np.int64)

    def pieces(self, offsets: Ids, length: int) -> Ids:
        """[n, length] ids from each of n places of the stream on; behind its end comes its beginning."""
        places = offsets[:, None] + np.arange(length)
        found: Ids = self.stream[places % len(self.stream)].astype(np.int64)
        return found

    @property
    def lengths(self) -> Ids:
        """[n] tokens of each crystal."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Joined:
    """Two splits as one: crystals and places of the second are counted on from the first's."""

    one: Split
    two: Split

    def __len__(self) -> int:
        return len(self.one) + len(self.two)

    def crystal(self, i: int) -> Ids:
        """Ids of crystal i."""
        return self.one.crystal(i) if i < len(self.one) else self.two.crystal(i - len(self.one))

    def pieces(self, offsets: Ids, length: int) -> Ids:
        """[n, length] ids from each of n places on; no piece holds tokens of both splits."""
        border = len(self.one.stream)
        found = np.zeros((len(offsets), length), dtype=np.int64)
        first = offsets < border
        found[first] = self.one.pieces(offsets[first], length)
        found[~first] = self.two.pieces(offsets[~first] - border, length)
        return found

    @property
    def starts(self) -> Ids:
        """[n + 1] where each crystal begins, and the end."""
        return np.concatenate([self.one.starts, self.two.starts[1:] + self.one.starts[-1]])

    @property
    def lengths(self) -> Ids:
        """[n] tokens of each crystal."""
        return np.diff(self.starts)


def facts(folder: str | Path) -> dict[str, Any]:
    """What `dataset.json` says of a data set folder.

    Raises:
        InputError: no data set there, or one that does not say its language and number of tokens.
    """
    path = Path(folder) / FACTS
    mend = "make one with `crystallm prepare`"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no data set in {str(folder)!r} ({FACTS}: {error.strerror}): {mend}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"no data set in {str(folder)!r} ({FACTS} is no JSON: {error}): {mend}") from error
    known = isinstance(found, dict) and isinstance(found.get("language"), str)
    size = found.get("vocab_size") if known else None
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_VOCABULARY:
        raise InputError(f"{str(path)!r} does not say a language and its vocab_size: {mend}")
    return dict(found)


def load(folder: str | Path, split: str) -> Split:
    """Map a split of a data set folder.

    Raises:
        InputError: no data set, no such split, an index that is none, or a stream that does not fit it.
    """
    about = facts(folder)
    base = Path(folder)
    try:
        with (base / f"{split}.idx.npy").open("rb") as handle:
            starts = np.lib.format.read_array(handle, allow_pickle=False)
        size = (base / f"{split}.bin").stat().st_size
    except (OSError, ValueError) as error:
        raise InputError(f"no split {split!r} in {str(folder)!r}: {error}") from error
    flat = starts.dtype == np.int64 and starts.ndim == 1 and starts.size > 0
    if not flat or starts[0] != 0 or (np.diff(starts) < 0).any():
        raise InputError(f"{split}.idx.npy in {str(folder)!r} is no index of crystals: prepare it again")
    if size != 2 * int(starts[-1]):
        raise InputError(
            f"{split}.bin in {str(folder)!r} has {size} bytes, not {2 * int(starts[-1])}: truncated?"
        )
    empty = np.zeros(0, dtype="<u2")
    stream = np.memmap(base / f"{split}.bin", dtype="<u2", mode="r") if size else empty
    return Split(stream, starts, about["language"], about["vocab_size"])


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
class Planned:
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

    def fill(self, split: Split | Joined) -> Batch:
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


def fill(split: Split | Joined, windows: Sequence[Sequence[int]], window: int) -> Batch:
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
) -> list[Planned]:
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
    found: list[Planned] = []
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
            found.append(Planned(window, rows, None, n_tokens, n_tokens - n_crystals))
        shorter, window = window, min(2 * window, context) if window < context else context + 1
    return found if rng is None else [found[i] for i in rng.permutation(len(found))]


def cut(offsets: Ids, *, batch_tokens: int, window: int) -> list[Planned]:
    """Batches of pieces of the stream, in the order of their offsets."""
    n_rows = max(1, batch_tokens // window)
    parts = [offsets[i : i + n_rows] for i in range(0, len(offsets), n_rows)]
    return [Planned(window, None, part, len(part) * window, len(part) * window) for part in parts]


def batches(
    split: Split, *, batch_tokens: int, context: int, seed: int, epoch: int, shuffle: bool = True
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
