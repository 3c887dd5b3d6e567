"""Prepare a data set: collections of structures become token shards, and every row is accounted for.

Reads whatever `sources` reads, takes each row through the steps of `process_row` and all of them through
those of `selection`, and writes a data set folder:

    run.json             configuration
    SPLIT.bin, .idx.npy  tokens, see `shards`; with `augmentations` also of equivalent descriptions
    SPLIT.properties.npy values of the properties, see `shards`
    rows.parquet         a row a crystal: id, source, split, formula, cell, space_group, n_atoms, tokens, and
                         its properties; with language `none` its CIF, and no tokens
    rejected.parquet     id, source, step, reason of all others
    report.json, .html   counts at each step; elements, space groups, lengths, use of the vocabulary
    dataset.json         language, vocabulary, counts; written last: the data set is then complete

Rows are processed in units, on any `concurrent.futures.Executor`. Finished units are kept in `parts/` until
the end, so that a killed run started again does only what is missing, and ends with the same bytes. Does not
depend on networks and training.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.datasets import properties, report, writer
from crystallm.datasets.options import PrepareOptions
from crystallm.datasets.process_row import COLUMNS, process_rows, rejected
from crystallm.datasets.selection import Exclusions, select_rows
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.mapping import map_tasks
from crystallm.execution.pool import Inline, ProcessPool
from crystallm.execution.progress import Progress, no_progress
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.execution.tasks import Failure, Limits
from crystallm.language import get_language
from crystallm.sources.splits import place_and_split, read_rows, read_splits
from crystallm.storage.run_folder import CONFIG, FACTS, RunFolder, require_config
from crystallm.structures.known_structures import known_equals

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    Row = dict[str, Any]

UNIT_ROWS, UNIT_BYTES = 500, 1_000_000
"""A unit of work ends with whichever is reached first."""

UNIT_LIMITS, ROW_LIMITS = Limits(seconds=900.0), Limits(seconds=60.0)
"""Limits of a unit, and of a row alone after its unit has failed. A usual row takes five milliseconds."""


def prepare(
    inputs: Sequence[str],
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> report.PreparationReport:
    """Turn collections into a data set folder, or complete one that was begun.

    Args:
        inputs: `PATH` or `PATH=SPLIT` of anything that `sources.read` reads.
        out: folder to create; new, empty, or of the same preparation.
        workers: processes. One means this process; with several, a row that crashes or hangs is rejected.

    Raises:
        InputError: an input that cannot be read or holds no row, a folder that holds something else, or an
            input that changed since the run was started.
        CrystallmError: the folder cannot be written, or another process writes it.
    """
    options = options or PrepareOptions()
    path, inputs = Path(out), [str(spec) for spec in inputs]
    folder = RunFolder(path, _configuration(inputs, options), COLUMNS, marker=FACTS)
    folder.check()
    if folder.finished:
        folder.drop_parts()
        return report.read(path)
    if not (path / CONFIG).exists() and path.exists() and any(path.iterdir()):
        raise InputError(f"{str(path)!r} exists and is not empty: give a new folder")
    options = _decide_auto(inputs, options)
    with contextlib.ExitStack() as stack:
        where = executor or stack.enter_context(local_executor(workers))
        exclusions = _read_exclusions(options, where, workers, progress)
        stack.enter_context(folder.held())
        if folder.finished:  # by another process meanwhile
            return report.read(path)
        rows = itertools.chain.from_iterable(_rows_with_values(spec, options) for spec in inputs)
        process_all(rows, options, folder, workers=workers, executor=where, progress=progress)
        _check_properties(folder, options)
        selection = select_rows(
            folder.tables,
            options,
            exclusions,
            lambda candidates: _equal_to_known(candidates, options, exclusions, workers, executor),
        )
        n_unreadable = exclusions.n_unreadable
        result = writer.write(
            path, folder.tables, selection, options=options, inputs=inputs, n_unreadable=n_unreadable
        )
        require_config(path)
        folder.drop_parts()
    return result


def _rows_with_values(spec: str, options: PrepareOptions) -> Iterator[Row]:
    """Yield the rows of an input with the values of their properties as numbers.

    Raises:
        InputError: a value is not a number, or as `sources.splits.read_rows`.
    """
    names = tuple(properties.parse_properties(options.properties))
    table = options.property_table
    values_of = {} if table is None else properties.read_values(table, names)
    for i, row in enumerate(read_rows(spec, names)):
        where = f"{row['source']}, row {i} ({row['id']})"
        given = {name: properties.number(row["values"].get(name), f"{where}: {name}") for name in names}
        values = {name: value for name, value in given.items() if value is not None}
        yield row | {"values": values | values_of.get(row["id"], {})}


def _check_properties(folder: RunFolder, options: PrepareOptions) -> None:
    """Raise InputError if a property has no value at all."""
    names = properties.parse_properties(options.properties)
    if not names:
        return
    counts, n_rows = dict.fromkeys(names, 0), 0
    for table in folder.tables(("properties",)):
        for text in table.column("properties").to_pylist():
            n_rows += 1
            for name in json.loads(text or "{}").keys() & counts.keys():
                counts[name] += 1
    properties.require_values(counts, n_rows)


def process_all(
    rows: Iterable[Row],
    options: PrepareOptions,
    folder: RunFolder,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> None:
    """Process rows of `sources.splits.read_rows` in units, those that a run folder lacks.

    Args:
        folder: of the run, with the columns of `process_row`.
    """
    with contextlib.ExitStack() as stack:
        where = executor or stack.enter_context(local_executor(workers))
        run_units(
            units(rows),
            _Rows(options, where, 2 * workers + 2).process,
            folder,
            task="reading crystals",
            size=len,
            digest=_digest,
            progress=progress,
        )


def _configuration(inputs: Sequence[str], options: PrepareOptions) -> dict[str, Any]:
    """Return the configuration of a run; it names files without their folders, which may be moved."""
    names = []
    for spec in inputs:
        path, split = place_and_split(spec)
        names.append(f"{path.name}={split}" if split else path.name)
    excluded = [Path(path).name for path in options.exclude]
    return RunFolder.configuration("prepare", options, inputs=names, exclude=excluded)


def _decide_auto(inputs: Sequence[str], options: PrepareOptions) -> PrepareOptions:
    """Return the options with `auto` decided, after a look at all inputs: one may take hours."""
    given = False
    for spec in inputs:
        first = next(read_rows(spec), None)
        if first is None:
            raise InputError(f"{spec!r} holds no row")
        given = given or bool(first["split"])
    if options.property_table is not None:
        properties.read_values(options.property_table, tuple(properties.parse_properties(options.properties)))
    if options.split_by == "auto":
        options = options.model_copy(update={"split_by": "given" if given else "random"})
    if options.split_by not in ("given", "random", "formula"):
        read_splits(Path(options.split_by))
    if options.deduplicate == "auto":
        kind = "none" if options.split_by == "given" else "formula-group"
        options = options.model_copy(update={"deduplicate": kind})
    return options


def local_executor(workers: int) -> Executor:
    """Return an executor of this machine: this process, or several processes that can be killed."""
    return Inline() if workers == 1 else ProcessPool(workers)


# -- units ---------------------------------------------------------------------------------------------------


def units(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut rows into units of work."""
    unit: list[Row] = []
    size = 0
    for row in rows:
        unit.append(row)
        size += len(row["text"] or "")
        if len(unit) == UNIT_ROWS or size >= UNIT_BYTES:
            yield unit
            unit, size = [], 0
    if unit:
        yield unit


def _digest(rows: Sequence[Row]) -> str:
    """Return a digest of the rows of a unit."""
    content = hashlib.blake2b(digest_size=16)
    for row in rows:
        content.update("\0".join(map(str, row.values())).encode(errors="replace"))
    return content.hexdigest()


@dataclass(frozen=True, slots=True)
class _Rows:
    """How the rows of units are processed."""

    options: PrepareOptions
    executor: Executor
    ahead: int

    def process(
        self, units: Iterator[tuple[int, list[Row]]], _: Callable[[int], None]
    ) -> Generator[UnitResult]:
        """Yield the records of each unit; of a unit that fails, each row is processed alone."""
        tasks = (self._task(rows, number) for number, rows in units)
        for task, records in map_tasks(
            self.executor, process_rows, tasks, ahead=self.ahead, limits=UNIT_LIMITS
        ):
            if isinstance(records, Failure):
                records = self._one_by_one(task["rows"])  # noqa: PLW2901 - the records of the same task
            for record in records:
                record["ids"] = None if record["ids"] is None else base64.b64decode(record["ids"])
            yield UnitResult(task["number"], records)

    def _one_by_one(self, rows: Sequence[Row]) -> list[Row]:
        records: list[Row] = [{}] * len(rows)
        tasks = (self._task([row], i) for i, row in enumerate(rows))
        for task, value in map_tasks(self.executor, process_rows, tasks, ahead=self.ahead, limits=ROW_LIMITS):
            if isinstance(value, Failure):
                origin = {name: task["rows"][0][name] for name in ("id", "source", "split")}
                records[task["number"]] = dict.fromkeys(COLUMNS) | origin | rejected("failed", value.reason)
            else:
                records[task["number"]] = value[0]
        return records

    def _task(self, rows: Sequence[Row], number: int) -> Row:
        options = self.options.model_dump(mode="json")
        return {"number": number, "options": options, "symmetry": self.options.needs_symmetry, "rows": rows}


# -- what the data set must not hold -------------------------------------------------------------------------


def _read_exclusions(
    options: PrepareOptions, executor: Executor, workers: int, progress: Progress
) -> Exclusions:
    """Read the collections whose crystals the data set must not hold."""
    exclusions = Exclusions()
    if not options.exclude:
        return exclusions
    by, numbers = options.exclude_by, itertools.count(1)
    with progress("reading excluded crystals", None) as advance:
        for path in options.exclude:
            name = Path(path).name
            if by == ("id",):
                exclusions.ids |= {row["id"]: name for row in read_rows(path)}
                continue
            symmetry = "formula-group" in by
            for record in read_crystals(path, executor, workers, options.symprec, symmetry=symmetry):
                exclusions.add(record, name, by, stop=not options.allow_unreadable)
                if not (number := next(numbers)) % 100:
                    advance(number)
    return exclusions


def read_crystals(
    path: str, executor: Executor, workers: int, symprec: float, *, symmetry: bool
) -> Iterator[Row]:
    """Yield the records of all rows of a collection in their order, with CIFs and without a filter.

    Args:
        symprec: tolerance of the symmetry search, Å.
        symmetry: whether to determine the conventional cell and the space group.

    Raises:
        CrystallmError: a worker process failed.
    """
    options = PrepareOptions(language="none", symprec=symprec, min_distance=0.0).model_dump(mode="json")
    tasks: Iterator[Row] = (
        {"number": number, "options": options, "symmetry": symmetry, "rows": rows}
        for number, rows in enumerate(units(read_rows(path)))
    )
    waiting: dict[int, list[Row]] = {}
    following = 0
    for task, records in map_tasks(executor, process_rows, tasks, ahead=2 * workers + 2, limits=UNIT_LIMITS):
        if isinstance(records, Failure):
            raise CrystallmError(f"{path!r} cannot be read in a worker process: {records.reason}")
        waiting[task["number"]] = records
        while following in waiting:
            yield from waiting.pop(following)
            following += 1


def _equal_to_known(
    candidates: Iterable[tuple[int, Mapping[str, Any]]],
    options: PrepareOptions,
    exclusions: Exclusions,
    workers: int,
    executor: Executor | None,
) -> dict[int, str]:
    """Return the rows that the structure matcher finds equal to an excluded crystal, and to which."""
    numbers, texts = [], []
    for number, record in candidates:
        numbers.append(number)
        if options.language == "none":
            texts.append(record["cif"])
        else:
            ids = np.frombuffer(record["ids"], dtype="<u2").tolist()
            texts.append(get_language(options.language).standard_text(ids))
    known = itertools.chain.from_iterable(exclusions.texts.values())
    equal = known_equals(texts, known, workers=workers, executor=executor)
    return {
        number: f"structure: {name}" for number, name in zip(numbers, equal, strict=True) if name is not None
    }
