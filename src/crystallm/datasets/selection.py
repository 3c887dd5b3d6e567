"""The steps of a preparation that look at all rows: exclude what is known, drop duplicates, split.

They see some numbers of each row, never all texts at once: a million rows take a hundred megabytes. What is
decided depends on the rows and the choices alone, not on how or where the rows were treated.

    excluded     equals an entry of a collection that the data may not hold
    duplicate    of the rows with one cell formula, space group and given split, the one with the least volume
                 per formula unit stays, the first among equals; or the first of those with one text
    split        rows in the order of a hash of (seed, id), or of (seed, formula): the first to `test`, the
                 next to `val`; another order of the input makes no difference
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crystallm.datasets.process_row import digest
from crystallm.sources.splits import SPLITS, read_splits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from crystallm.datasets.options import PrepareOptions

    Parts = Callable[[Sequence[str]], Iterator[pa.Table]]


REFUSED, KEPT, EXCLUDED, DUPLICATE, UNSPLIT = range(5)
"""What becomes of a row. REFUSED: by a step before these."""

Numbers = npt.NDArray[np.int64]


@dataclass
class Exclusions:
    """What the data may not hold.

    Attributes:
        ids: of the entries.
        pairs: reduced formula and space group of each.
        texts: CIFs by reduced formula, with their ids, for comparison by structure.
        n_unreadable: entries of which only the id is known.
    """

    ids: dict[str, str] = field(default_factory=dict)
    pairs: dict[tuple[str, int], str] = field(default_factory=dict)
    texts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    n_unreadable: int = 0


@dataclass(frozen=True)
class RowSelection:
    """What becomes of each row.

    Attributes:
        fate: [n] one of REFUSED, KEPT, EXCLUDED, DUPLICATE, UNSPLIT.
        split: [n] index into SPLITS of a kept row.
        reasons: by number of the row, for those that these steps put aside.
    """

    fate: npt.NDArray[np.uint8]
    split: npt.NDArray[np.uint8]
    reasons: Mapping[int, str]


def select_rows(
    parts: Parts,
    choices: PrepareOptions,
    known: Exclusions,
    equal: Callable[[Iterator[tuple[int, str, Mapping[str, Any]]]], Mapping[int, str]],
) -> RowSelection:
    """Decide on all rows.

    Args:
        parts: gives the treated rows with the columns asked for, from the first each time.
        choices: `split` is `given`, `random`, `formula` or a file.
        known: what the data may not hold.
        equal: of rows (number, formula, record) those that equal a known structure, and why.

    Raises:
        InputError: the file of splits cannot be read.
    """
    by_file = read_splits(Path(choices.split)) if choices.split not in ("given", "random", "formula") else {}
    reasons: dict[int, str] = {}
    fates, splits, keys, volumes, orders = [], [], [], [], []
    names = ("id", "split", "step", "formula", "cell", "space_group", "volume", "digest")
    start = 0
    for table in parts(names):
        columns = {name: table.column(name).to_pylist() for name in names}
        fate = np.array([REFUSED if step else KEPT for step in columns["step"]], dtype=np.uint8)
        given = list(columns["split"])
        for i in np.flatnonzero(fate == KEPT).tolist():
            why = _excluded(known, columns["id"][i], columns["formula"][i], columns["space_group"][i])
            if why:
                fate[i], reasons[start + i] = EXCLUDED, why
            elif by_file:
                given[i] = by_file.get(columns["id"][i], "")
                if not given[i]:
                    fate[i] = UNSPLIT
                    reasons[start + i] = f"its id is not in {Path(choices.split).name}"
        fates.append(fate)
        splits.append(np.array([SPLITS.index(s) if s else 0 for s in given], dtype=np.uint8))
        if choices.deduplicate != "none":
            pairs = zip(columns["cell"], columns["space_group"], columns["digest"], strict=True)
            keys.append(_keys(choices.deduplicate, given, pairs))
            volumes.append(np.array([np.nan if v is None else v for v in columns["volume"]]))
        if choices.split in ("random", "formula"):
            name = "id" if choices.split == "random" else "formula"
            hashed = [digest(f"{choices.seed}\0{value}".encode()) for value in columns[name]]
            orders.append(np.array(hashed, dtype=np.int64))
        start += len(fate)
    fate, split = _joined(fates, np.uint8), _joined(splits, np.uint8)
    if known.texts:
        matched = equal(_candidates(parts, fate, known))
        fate[list(matched)] = EXCLUDED
        reasons |= matched
    if choices.deduplicate != "none":
        volume = _joined(volumes, np.float64) if choices.deduplicate == "formula-group" else None
        first = duplicates(_joined(keys, np.int64), volume, fate == KEPT)
        fate[first >= 0] = DUPLICATE
        reasons |= _duplicate_reasons(parts, first, choices.deduplicate)
    if orders:
        split[:] = 0
        rows = np.flatnonzero(fate == KEPT)
        split[rows] = shuffled(_joined(orders, np.int64)[rows], choices.val, choices.test)
    return RowSelection(fate, split, reasons)


def duplicates(
    keys: Numbers, volumes: npt.NDArray[np.float64] | None, kept: npt.NDArray[np.bool_]
) -> Numbers:
    """For each row the row that it repeats, or -1.

    Args:
        keys: [n] equal for rows that repeat each other.
        volumes: [n] the least stays, the first among equals; None: the first stays.
        kept: [n] rows that count.
    """
    rows = np.flatnonzero(kept)
    order = np.lexsort((rows, keys[rows]) if volumes is None else (rows, volumes[rows], keys[rows]))
    ranked = rows[order]
    new = np.ones(len(ranked), dtype=np.bool_)
    new[1:] = keys[ranked[1:]] != keys[ranked[:-1]]
    heads = ranked[np.maximum.accumulate(np.where(new, np.arange(len(ranked)), 0))]
    first = np.full(len(keys), -1, dtype=np.int64)
    first[ranked[~new]] = heads[~new]
    return first


def shuffled(hashes: Numbers, val: float, test: float) -> npt.NDArray[np.uint8]:
    """The split (index into SPLITS) of each of n rows, rows with one hash together.

    Args:
        hashes: [n] in whose order the rows are dealt: test first, then val, the rest is for training.
        val: share below 1, or number of rows; at least one of several.
        test: the same, but perhaps none.
    """
    n = len(hashes)
    n_test = round(test * n) if test < 1 else int(test)
    n_val = round(val * n) if val < 1 else int(val)
    if val and n > 1:
        n_val = max(1, n_val)
    _, member, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    before = np.concatenate(([0], np.cumsum(sizes)[:-1]))  # rows dealt before each group
    of_group = np.where(before < n_test, 2, np.where(before < n_test + n_val, 1, 0)).astype(np.uint8)
    found: npt.NDArray[np.uint8] = of_group[member]
    return found


def _excluded(known: Exclusions, identifier: str, formula: str, group: int | None) -> str:
    if identifier in known.ids:
        return f"id: in {known.ids[identifier]}"
    pair = None if group is None else known.pairs.get((formula, group))
    return f"formula and space group: {pair}" if pair else ""


def _keys(kind: str, splits: Sequence[str], pairs: Any) -> Numbers:
    """What equal rows share, the given split too, so that no test entry falls for a training one."""
    return np.array(
        [
            digest(f"{split}\0{text if kind == 'text' else (cell, group)}".encode())
            for split, (cell, group, text) in zip(splits, pairs, strict=True)
        ],
        dtype=np.int64,
    )


def _joined(parts: Sequence[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)


def _duplicate_reasons(parts: Parts, first: Numbers, kind: str) -> dict[int, str]:
    heads = set(first[first >= 0].tolist())
    names: dict[int, str] = {}
    start = 0
    for table in parts(("id",)) if heads else ():
        inside = [row for row in range(start, start + len(table)) if row in heads]
        names |= {row: table.column("id")[row - start].as_py() for row in inside}
        start += len(table)
    what = "text of" if kind == "text" else "cell formula and space group of"
    return {row: f"{what} {names[int(first[row])]}" for row in np.flatnonzero(first >= 0).tolist()}


def _candidates(
    parts: Parts, fate: npt.NDArray[np.uint8], known: Exclusions
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    start = 0
    for table in parts(("formula", "ids", "cif")):
        formulas = table.column("formula").to_pylist()
        for i, formula in enumerate(formulas):
            if fate[start + i] == KEPT and formula in known.texts:
                yield start + i, formula, {name: table.column(name)[i].as_py() for name in ("ids", "cif")}
        start += len(formulas)
