"""Select rows of all rows: exclude those of other collections, drop duplicates, assign splits.

Only some numbers of each row are held, never all texts: a million rows take a hundred megabytes. The result
depends on the rows and the options alone, not on where the rows were processed.

    excluded     equals an entry of a collection that the data set must not hold
    duplicate    of the rows with the same cell formula, space group and given split, the one with the
                 smallest volume per formula unit stays, the first of equal ones; or the first with a text
    split        rows in the order of a hash of (seed, id), or of (seed, formula): the first for `test`, the
                 next for `val`; the order of the input makes no difference
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crystallm.datasets.process_row import digest
from crystallm.errors import InputError
from crystallm.sources.splits import SPLITS, read_splits

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    import pyarrow as pa

    from crystallm.datasets.options import PrepareOptions

    Parts = Callable[[Sequence[str]], Iterator[pa.Table]]
    Match = Callable[[Iterator["Candidate"]], Mapping[int, str]]
    Candidate = tuple[int, Mapping[str, Any]]  # number of a row, and its ids and CIF

Numbers = npt.NDArray[np.int64]


class RowStatus(IntEnum):
    """What becomes of a row."""

    REJECTED = 0  # by a step of `process_row`
    KEPT = 1
    EXCLUDED = 2
    DUPLICATE = 3
    UNSPLIT = 4  # not in the file of splits


@dataclass
class Exclusions:
    """Crystals that the data set must not hold.

    Attributes:
        ids: name of the collection by id.
        groups: id by reduced formula and space group.
        texts: ids and CIFs by reduced formula, for comparison by structure.
        n_unreadable: number of entries of which only the id is known.
    """

    ids: dict[str, str] = field(default_factory=dict)
    groups: dict[tuple[str, int], str] = field(default_factory=dict)
    texts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    n_unreadable: int = 0

    def add(self, record: Mapping[str, Any], collection: str, by: Container[str], *, stop: bool) -> None:
        """Add a crystal of a collection, by its `id`, `formula-group` or `structure`.

        Args:
            stop: whether one that cannot be read is an error. One that no language can describe, with shared
                sites or without a token for an element, equals no row anyway.

        Raises:
            InputError: it is, and names the crystal.
        """
        if "id" in by:
            self.ids[record["id"]] = collection
        if stop and record["step"] not in ("", "ordered", "elements"):
            raise InputError(
                f"exclude = {collection!r}: {record['id']} cannot be read ({record['reason']}), so that it "
                "might get into the data set: correct or remove it, or go on with --allow-unreadable"
            )
        if record["step"]:
            self.n_unreadable += 1
            return
        if "formula-group" in by:
            self.groups[record["formula"], record["space_group"]] = record["id"]
        if "structure" in by:
            self.texts.setdefault(record["formula"], []).append((record["id"], record["cif"]))

    def reason(self, row_id: str, formula: str, group: int | None) -> str:
        """Return why a row is excluded by its id or by formula and space group; "" if it is not."""
        if row_id in self.ids:
            return f"id: in {self.ids[row_id]}"
        known = None if group is None else self.groups.get((formula, group))
        return f"formula and space group: {known}" if known else ""


@dataclass(frozen=True)
class RowSelection:
    """What becomes of each row.

    Attributes:
        status: [n] RowStatus.
        split: [n] index into SPLITS of a kept row.
        reasons: by number of the row, for those that are not kept; not of rejected rows.
    """

    status: npt.NDArray[np.uint8]
    split: npt.NDArray[np.uint8]
    reasons: dict[int, str]


def select_rows(parts: Parts, options: PrepareOptions, exclusions: Exclusions, match: Match) -> RowSelection:
    """Decide on all rows.

    Args:
        parts: returns the tables of processed rows with the columns given, from the first each time.
        options: `split` is `given`, `random`, `formula` or a file; `deduplicate` is not `auto`.
        match: of rows, those that equal an excluded structure, by number, and why.
    """
    rows, given = _exclude(parts, options, exclusions)
    if exclusions.texts:
        matches = match(_candidates(parts, rows.status, exclusions))
        rows.status[list(matches)] = RowStatus.EXCLUDED
        rows.reasons.update(matches)
    if options.deduplicate != "none":
        _drop_duplicates(parts, rows, given, options.deduplicate)
    if options.split_by in ("random", "formula"):
        _assign_splits(parts, rows, options)
    return rows


def _exclude(parts: Parts, options: PrepareOptions, exclusions: Exclusions) -> tuple[RowSelection, list[str]]:
    """Exclude rows by id or group, and reject those without a split; return their given splits too."""
    file = None if options.split_by in ("given", "random", "formula") else Path(options.split_by)
    split_of = {} if file is None else read_splits(file)
    status: list[RowStatus] = []
    given: list[str] = []
    reasons: dict[int, str] = {}
    for row_id, step, split, formula, group in _values(
        parts, ("id", "step", "split", "formula", "space_group")
    ):
        if file is not None and not step:
            split = split_of.get(row_id, "")  # noqa: PLW2901 - the file wins over the input
        state, reason = RowStatus.REJECTED if step else RowStatus.KEPT, ""
        if not step and (reason := exclusions.reason(row_id, formula, group)):
            state = RowStatus.EXCLUDED
        elif not step and file is not None and not split:
            state, reason = RowStatus.UNSPLIT, f"its id is not in {file.name}"
        if reason:
            reasons[len(status)] = reason
        status.append(state)
        given.append(split)
    splits = [SPLITS.index(split) if split else 0 for split in given]
    return RowSelection(np.array(status, dtype=np.uint8), np.array(splits, dtype=np.uint8), reasons), given


def _values(parts: Parts, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the values of all rows, row by row."""
    for table in parts(columns):
        yield from zip(*(table.column(name).to_pylist() for name in columns), strict=True)


def _drop_duplicates(parts: Parts, rows: RowSelection, given: Sequence[str], kind: str) -> None:
    """Mark duplicates among the kept rows of one given split: no test entry is dropped for a training one."""
    if kind == "text":
        keys: Iterator[Any] = (text for (text,) in _values(parts, ("digest",)))
    else:
        keys = _values(parts, ("cell", "space_group"))
    hashes = [digest(f"{split}\0{key}".encode()) for split, key in zip(given, keys, strict=True)]
    volumes = None
    if kind == "formula-group":
        volumes = np.array([np.nan if v is None else v for (v,) in _values(parts, ("volume",))])
    first = duplicates(np.array(hashes, dtype=np.int64), volumes, rows.status == RowStatus.KEPT)
    rows.status[first >= 0] = RowStatus.DUPLICATE
    heads = set(first[first >= 0].tolist())
    ids = {row: row_id for row, (row_id,) in enumerate(_values(parts, ("id",))) if row in heads}
    what = "text of" if kind == "text" else "cell formula and space group of"
    for row in np.flatnonzero(first >= 0).tolist():
        rows.reasons[row] = f"{what} {ids[int(first[row])]}"


def duplicates(
    keys: Numbers, volumes: npt.NDArray[np.float64] | None, kept: npt.NDArray[np.bool_]
) -> Numbers:
    """Return for each row the number of the row that it duplicates, or -1.

    Args:
        keys: [n] equal for duplicates.
        volumes: [n] the smallest stays, the first of equal ones; None: the first stays.
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


def _assign_splits(parts: Parts, rows: RowSelection, options: PrepareOptions) -> None:
    column = "id" if options.split_by == "random" else "formula"
    hashes = [digest(f"{options.seed}\0{value}".encode()) for (value,) in _values(parts, (column,))]
    kept = np.flatnonzero(rows.status == RowStatus.KEPT)
    rows.split[:] = 0
    rows.split[kept] = shuffled(
        np.array(hashes, dtype=np.int64)[kept], options.val_fraction, options.test_fraction
    )


def shuffled(hashes: Numbers, val: float, test: float) -> npt.NDArray[np.uint8]:
    """Return the split (index into SPLITS) of each of n rows, rows with one hash together.

    Args:
        hashes: [n] in whose order the rows are assigned: test first, then val, the rest for training.
        val: fraction below 1, or number of rows; at least one of several.
    """
    n = len(hashes)
    n_test = round(test * n) if test < 1 else int(test)
    n_val = round(val * n) if val < 1 else int(val)
    if val and n > 1:
        n_val = max(1, n_val)
    _, member, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    before = np.concatenate(([0], np.cumsum(sizes)[:-1]))  # rows assigned before each group
    of_group = np.where(before < n_test, 2, np.where(before < n_test + n_val, 1, 0)).astype(np.uint8)
    splits: npt.NDArray[np.uint8] = of_group[member]
    return splits


def _candidates(parts: Parts, status: npt.NDArray[np.uint8], exclusions: Exclusions) -> Iterator[Candidate]:
    """Yield the kept rows whose formula is that of an excluded structure."""
    start = 0
    for table in parts(("formula", "ids", "cif")):
        formulas = table.column("formula").to_pylist()
        for i, formula in enumerate(formulas):
            if status[start + i] == RowStatus.KEPT and formula in exclusions.texts:
                yield start + i, {name: table.column(name)[i].as_py() for name in ("ids", "cif")}
        start += len(formulas)
