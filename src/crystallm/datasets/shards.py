"""Token shards on disk: write a split crystal by crystal, and map it into memory.

`SPLIT.properties.npy` holds the values of properties, float64 [n, number of properties], NaN where one is
missing; `dataset.json` names the columns with their units.

Needs numpy alone.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crystallm.errors import InputError
from crystallm.storage.run_folder import FACTS

Ids = npt.NDArray[np.int64]
EQUIVALENTS = "equivalents"
"""Split with equivalent descriptions of the crystals of `train`: the same number of each, in their order."""
MAX_VOCABULARY = 65536
"""Maximum number of tokens: ids are uint16."""


class SplitWriter:
    """Writes the crystals of a split as one stream, its index and its properties, crystal by crystal.

    All files are moved into place when the `with` block ends without an error; until then, and after an
    error, old ones stay.

    Attributes:
        n_properties: number of properties of a crystal; 0: no file is written for them.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._stream = folder / f"{split}.bin"
        self._index = folder / f"{split}.idx.npy"
        self._new = folder / f".{split}.bin.tmp"
        self._properties = folder / f"{split}.properties.npy"
        self._lengths, self._values = array("q"), array("d")
        self.n_properties = 0
        self.n_tokens = 0

    @property
    def n_crystals(self) -> int:
        """Number of crystals written so far."""
        return len(self._lengths)

    def add(self, ids: bytes, values: Sequence[float] = ()) -> None:
        """Write a crystal, its ids as little-endian uint16, and `n_properties` values, NaN where missing."""
        self._values.extend(values)
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
        new_index = _write_array(self._index, starts)
        if self.n_properties:
            table = np.frombuffer(self._values, dtype=np.float64).reshape(-1, self.n_properties)
            _write_array(self._properties, table).replace(self._properties)
        self._new.replace(self._stream)
        new_index.replace(self._index)


def _write_array(path: Path, content: npt.NDArray[Any]) -> Path:
    """Write an array to a temporary file beside a path and return it."""
    new = path.with_name(f".{path.name}.tmp")
    with new.open("wb") as file:
        np.save(file, content)
        file.flush()
        os.fsync(file.fileno())
    return new


@dataclass(frozen=True)
class TokenSplit:
    """The crystals of one split.

    Attributes:
        stream: all ids, uint16, mapped from disk.
        starts: [n + 1] index of the first id of each crystal, and the end.
    """

    stream: npt.NDArray[np.uint16]
    starts: Ids
    language: str
    vocab_size: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def crystal(self, i: int) -> Ids:
        """Return the ids of crystal i."""
        return self.stream[self.starts[i] : self.starts[i + 1]].astype(np.int64)

    def pieces(self, offsets: Ids, length: int) -> Ids:
        """Return [n, length] ids from each of n offsets in the stream on, which continues at its start."""
        indices = offsets[:, None] + np.arange(length)
        ids: Ids = self.stream[indices % len(self.stream)].astype(np.int64)
        return ids

    @property
    def lengths(self) -> Ids:
        """[n] number of tokens of each crystal."""
        return np.diff(self.starts)

    @property
    def untaught(self) -> Ids:
        """[n] number of the first tokens of each crystal that are read, not learned: none."""
        return np.zeros(len(self), np.int64)


@dataclass(frozen=True)
class PrefixedSplit:
    """Crystals behind tokens that are read, not learned.

    Attributes:
        prefixes: these tokens, for each crystal of `split`.
    """

    prefixes: TokenSplit
    split: TokenSplit

    def __len__(self) -> int:
        return len(self.split)

    def crystal(self, i: int) -> Ids:
        """Return the ids before and of crystal i."""
        return np.concatenate([self.prefixes.crystal(i), self.split.crystal(i)])

    def pieces(self, offsets: Ids, length: int) -> Ids:
        """Not possible: prefixes and crystals are not in one stream."""
        raise NotImplementedError

    @property
    def starts(self) -> Ids:
        """[n + 1] index of the first id of each crystal and its prefix, and the end."""
        return self.prefixes.starts + self.split.starts

    @property
    def lengths(self) -> Ids:
        """[n] number of tokens of each crystal and its prefix."""
        return np.diff(self.starts)

    @property
    def untaught(self) -> Ids:
        """[n] number of the first tokens of each crystal that are read, not learned."""
        return self.prefixes.lengths


@dataclass(frozen=True)
class ConcatenatedSplit:
    """Two splits as one: crystals and offsets of the second follow those of the first."""

    first: TokenSplit
    second: TokenSplit | PrefixedSplit

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def crystal(self, i: int) -> Ids:
        """Return the ids of crystal i."""
        return self.first.crystal(i) if i < len(self.first) else self.second.crystal(i - len(self.first))

    def pieces(self, offsets: Ids, length: int) -> Ids:
        """Return [n, length] ids from each of n offsets on; no piece holds tokens of both splits."""
        border = int(self.first.starts[-1])
        ids = np.zeros((len(offsets), length), dtype=np.int64)
        in_first = offsets < border
        ids[in_first] = self.first.pieces(offsets[in_first], length)
        ids[~in_first] = self.second.pieces(offsets[~in_first] - border, length)
        return ids

    @property
    def starts(self) -> Ids:
        """[n + 1] index of the first id of each crystal, and the end."""
        return np.concatenate([self.first.starts, self.second.starts[1:] + self.first.starts[-1]])

    @property
    def lengths(self) -> Ids:
        """[n] number of tokens of each crystal."""
        return np.diff(self.starts)

    @property
    def untaught(self) -> Ids:
        """[n] number of the first tokens of each crystal that are read, not learned."""
        return np.concatenate([self.first.untaught, self.second.untaught])


Split = TokenSplit | PrefixedSplit | ConcatenatedSplit


def facts(folder: str | Path) -> dict[str, Any]:
    """Return the content of `dataset.json` of a data set folder.

    Raises:
        InputError: there is no data set, or it does not state its language and number of tokens.
    """
    path = Path(folder) / FACTS
    remedy = "make one with `crystallm prepare`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no data set in {str(folder)!r} ({FACTS}: {error.strerror}): {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"no data set in {str(folder)!r} ({FACTS} is not JSON: {error}): {remedy}"
        ) from error
    known = isinstance(content, dict) and isinstance(content.get("language"), str)
    size = content.get("vocab_size") if known else None
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_VOCABULARY:
        raise InputError(f"{str(path)!r} does not state a language and its vocab_size: {remedy}")
    return dict(content)


def load(folder: str | Path, split: str) -> TokenSplit:
    """Map a split of a data set folder.

    Raises:
        InputError: no data set, no such split, an invalid index, or a stream that does not match it.
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
        raise InputError(f"{split}.idx.npy in {str(folder)!r} is not an index of crystals: prepare it again")
    if size != 2 * int(starts[-1]):
        raise InputError(
            f"{split}.bin in {str(folder)!r} has {size} bytes, not {2 * int(starts[-1])}: truncated?"
        )
    empty = np.zeros(0, dtype="<u2")
    stream = np.memmap(base / f"{split}.bin", dtype="<u2", mode="r") if size else empty
    return TokenSplit(stream, starts, about["language"], about["vocab_size"])


def property_units(folder: str | Path) -> dict[str, str]:
    """Return the units of the properties of a data set folder, by name, in the order of their columns."""
    named = facts(folder).get("properties", {})
    return {str(name): str(unit) for name, unit in named.items()} if isinstance(named, Mapping) else {}


def load_properties(folder: str | Path, split: str, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return values of properties of the crystals of a split, [n, number of names]; NaN where missing.

    Raises:
        InputError: no data set, or no such property.
    """
    known = list(property_units(folder))
    for name in names:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "it has none: prepare it again"
            raise InputError(
                f"no property {name!r} in the data set {str(folder)!r}: {there}; "
                f"crystallm prepare --property {name} keeps a column"
            )
    path = Path(folder) / f"{split}.properties.npy"
    try:
        values: npt.NDArray[np.float64] = np.load(path, allow_pickle=False)
        n = len(load(folder, split))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}): prepare the data again") from None
    if values.dtype != np.float64 or values.shape != (n, len(known)):
        raise InputError(f"{str(path)!r} does not hold {len(known)} values of {n} crystals: prepare again")
    return values[:, [known.index(name) for name in names]]


def n_relatives(folder: str | Path) -> int:
    """Return how many relatives of each crystal a data set holds, at most; 0: it has none."""
    n = facts(folder).get("relatives", 0)
    return n if isinstance(n, int) else 0


def with_relatives(folder: str | Path, split: str) -> PrefixedSplit:
    """Map the split `train` or `val` with what is read before its crystals.

    Raises:
        InputError: the data set has no relatives, or not those of these crystals.
    """
    remedy = "make them with `crystallm references relatives DATASET`"
    if not n_relatives(folder):
        raise InputError(f"the data set {str(folder)!r} has no relatives: {remedy}")
    crystals, relatives = load(folder, split), load(folder, relatives_split(split))
    if len(relatives) != len(crystals):
        raise InputError(
            f"{str(folder)!r} has relatives of {len(relatives)} crystals, and {len(crystals)} crystals in "
            f"{split!r}: {remedy}"
        )
    return PrefixedSplit(relatives, crystals)


def relatives_split(split: str) -> str:
    """Return the name of the split that holds the relatives of the crystals of another."""
    return f"{split}-relatives"
