"""Collections of structures -> token shards, with a word on every row.

Reads whatever `sources` reads, takes each row through the steps of `prepare_row` and all of them through
those of `prepare_whole`, and writes a data set folder:

    run.json             what was asked
    SPLIT.bin, .idx.npy  tokens, see `dataset`; with `equivalents` also of other descriptions, so named
    rows.parquet         a row a crystal: id, source, split, formula, cell, space_group, n_atoms, tokens; with
                         language `none` its CIF, and no tokens
    rejected.parquet     id, source, step, reason of all others
    report.json, .html   counts at each step; elements, space groups, lengths, use of the vocabulary
    dataset.json         language, vocabulary, counts; written last: with it the data set is there

Rows are treated in units, on any `concurrent.futures.Executor`; what is done is kept in `parts/` until the
end, so that a run that was killed and started again does only what is missing, and ends with the same bytes.

It refuses to know networks and training.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.datasets import selection
from crystallm.datasets.options import PrepareOptions
from crystallm.datasets.process_row import COLUMNS, refused
from crystallm.datasets.selection import Exclusions
from crystallm.errors import CrystallmError, InputError
from crystallm.execution import mapping, pool
from crystallm.execution import tasks as execution_tasks
from crystallm.sources import splits
from crystallm.sources.splits import place_and_split, read_rows
from crystallm.storage import files, run_folder, tables
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    import pyarrow as pa

    from crystallm.datasets.report import PreparationReport


UNIT_ROWS, UNIT_BYTES = 500, 1_000_000
"""A unit of work ends with whichever is reached first."""

UNIT_SECONDS, ROW_SECONDS = 900.0, 60.0
"""Limits for a unit, and for a row alone after its unit was lost. A usual row takes five milliseconds."""

PARTS = "parts"

TREAT = "crystallm.datasets.process_row:treat_unit"


def prepare(
    inputs: Sequence[str],
    out: str | Path,
    choices: PrepareOptions | None = None,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> PreparationReport:
    """Turn collections into a data set folder, or finish one that was begun.

    Args:
        inputs: `PATH` or `PATH=SPLIT` of anything that `sources.read` reads.
        out: folder to make; new, empty, or of the same preparation.
        choices: what the steps do.
        workers: processes. One means this process; a row that crashes or hangs one of several is refused.
        executor: where to work instead, such as a cluster's.
        progress: called with the number of rows done after each unit; those done before count.

    Raises:
        InputError: an input that cannot be read or holds no row, a folder that holds something else, or an
            input that changed since the run was begun.
        CrystallmError: the folder cannot be written.
    """
    from crystallm.datasets import report as datasets_report
    from crystallm.datasets import writer

    choices = choices or PrepareOptions()
    folder = Path(out)
    files.check_place(folder)
    inputs = [str(spec) for spec in inputs]
    question = _question(inputs, choices)
    if (folder / run_folder.CONFIG).exists():
        run_folder.check_config(folder / run_folder.CONFIG, question)
        if (folder / run_folder.FACTS).exists():
            shutil.rmtree(folder / PARTS, ignore_errors=True)
            return datasets_report.read(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{str(folder)!r} exists and is not empty: give a new folder")
    choices = _settled(inputs, choices)
    with ExitStack() as stack:
        many = executor or stack.enter_context(local(workers))
        single = executor or stack.enter_context(local(workers, ROW_SECONDS))
        known = _read_known(choices, many, workers)
        if not (folder / run_folder.CONFIG).exists():
            files.write_json(folder / run_folder.CONFIG, question)
        where = _Where(many, single, 2 * workers + 2)
        n_parts = _treat_all(inputs, folder, choices, where, progress)

    def parts(columns: Sequence[str]) -> Iterator[pa.Table]:
        return (_read_part(_part(folder, number), columns) for number in range(n_parts))

    fates = selection.select_rows(
        parts, choices, known, lambda rows: _equal_to_known(rows, choices, known, workers, executor)
    )
    report = writer.write(
        folder, parts, fates, choices=choices, inputs=inputs, unreadable_known=known.n_unreadable
    )
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    return report


def _question(inputs: Sequence[str], choices: PrepareOptions) -> dict[str, Any]:
    """What is asked, as `run.json` keeps it: names in place of paths, so that a moved folder can go on."""
    named = []
    for spec in inputs:
        path, split = place_and_split(spec)
        named.append(f"{path.name}={split}" if split else path.name)
    record = choices.model_dump(mode="json")
    if not choices.equivalents:
        del record["equivalents"]  # which folders of earlier versions do not name
    record["exclude"] = [Path(path).name for path in choices.exclude]
    return {"command": "prepare", "version": __version__, "inputs": named, **record}


def _settled(inputs: Sequence[str], choices: PrepareOptions) -> PrepareOptions:
    """The choices with `auto` decided; a wrong last input is told before hours of work on the first.

    Raises:
        InputError: an input that cannot be read or holds no row, or a file of splits that is none.
    """
    says = False
    for spec in inputs:
        first = next(read_rows(spec), None)
        if first is None:
            raise InputError(f"{spec!r} holds no row")
        says = says or bool(first["split"])
    if choices.split == "auto":
        choices = choices.model_copy(update={"split": "given" if says else "random"})
    if choices.split not in ("given", "random", "formula"):
        splits.read_splits(Path(choices.split))
    if choices.deduplicate == "auto":
        kind = "none" if choices.split == "given" else "formula-group"
        choices = choices.model_copy(update={"deduplicate": kind})
    return choices


def local(count: int, seconds: float = UNIT_SECONDS) -> Executor:
    """This machine: one process, which is this one, or several that can be lost."""
    return pool.Inline() if count == 1 else pool.Pool(count, seconds=seconds)


# ------------------------------------------------------------------------------------------------ units


def units(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in the units in which they are treated."""
    unit: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        unit.append(row)
        size += len(row["text"] or "")
        if len(unit) == UNIT_ROWS or size >= UNIT_BYTES:
            yield unit
            unit, size = [], 0
    if unit:
        yield unit


@dataclass(frozen=True)
class _Where:
    """Executors for units and for rows alone, and how many tasks to draw ahead of what is done."""

    many: Executor
    single: Executor
    ahead: int


@dataclass
class _Tasks:
    """Units of work as they are drawn; those in flight are remembered until they are done."""

    units: Iterable[list[dict[str, Any]]]
    folder: Path
    choices: dict[str, Any]
    passed: Callable[[int], None]
    open: dict[int, tuple[int, list[dict[str, Any]], str]] = field(default_factory=dict)
    n_units: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        drawn = itertools.count()
        for number, rows in enumerate(self.units):
            self.n_units = number + 1
            mark = _mark(rows)
            if _part(self.folder, number).exists():
                if _mark_of(_part(self.folder, number)) != mark:
                    raise InputError(
                        f"the input has changed since {str(self.folder)!r} was begun (rows from "
                        f"{rows[0]['id']!r} on): give a new folder, or delete this one"
                    )
                self.passed(len(rows))
                continue
            self.open[next(drawn)] = (number, rows, mark)
            yield {"choices": self.choices, "rows": rows}


def _treat_all(
    inputs: Sequence[str],
    folder: Path,
    choices: PrepareOptions,
    where: _Where,
    progress: Callable[[int], None] | None,
) -> int:
    """Treat what is not yet done, and return the number of units."""
    done = 0

    def passed(n_rows: int) -> None:
        nonlocal done
        done += n_rows
        if progress is not None:
            progress(done)

    rows = itertools.chain.from_iterable(map(read_rows, inputs))
    tasks = _Tasks(units(rows), folder, choices.model_dump(mode="json"), passed)
    for drawn, value in mapping.stream(where.many, TREAT, tasks, ahead=where.ahead):
        number, unit, mark = tasks.open.pop(drawn)
        lost = isinstance(value, execution_tasks.Failure)
        found = _one_by_one(unit, tasks.choices, where) if lost else value
        for record in found:
            record["ids"] = None if record["ids"] is None else base64.b64decode(record["ids"])
        content = tables.as_parquet(found, COLUMNS, {"rows": mark})
        files.write_atomically(_part(folder, number), content)
        passed(len(unit))
    return tasks.n_units


def _one_by_one(
    rows: Sequence[dict[str, Any]], choices: dict[str, Any], where: _Where
) -> list[dict[str, Any]]:
    """The records of a unit that was lost: each row alone, so that a freak among them costs itself only."""
    found: list[dict[str, Any]] = [{}] * len(rows)
    tasks = ({"choices": choices, "rows": [row]} for row in rows)
    for i, value in mapping.stream(where.single, TREAT, tasks, ahead=where.ahead):
        if isinstance(value, execution_tasks.Failure):
            origin = {name: rows[i][name] for name in ("id", "source", "split")}
            found[i] = dict.fromkeys(COLUMNS) | origin | refused("lost", value.reason)
        else:
            found[i] = value[0]
    return found


def _part(folder: Path, number: int) -> Path:
    return folder / PARTS / f"{number:06d}.parquet"


def _mark(rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells the rows of a unit from others."""
    content = hashlib.blake2b(digest_size=16)
    for row in rows:
        content.update("\0".join(map(str, row.values())).encode(errors="replace"))
    return content.hexdigest()


def _mark_of(path: Path) -> str:
    return str((_reading(path).schema_arrow.metadata or {}).get(b"rows", b""), "ascii")


def _read_part(path: Path, columns: Sequence[str]) -> pa.Table:
    with _reading(path) as part:
        return part.read(columns=list(columns))


def _reading(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise CrystallmError(f"{str(path)!r} is damaged ({error}): delete it and run again") from None


# ------------------------------------------------------------------------------- what may not be in the data


def _read_known(choices: PrepareOptions, executor: Executor, count: int) -> Exclusions:
    """What the data may not hold.

    Raises:
        InputError: as `sources.read`.
    """
    known = Exclusions()
    if not choices.exclude:
        return known
    by = choices.exclude_by
    asked = PrepareOptions(
        language="none", symprec=choices.symprec, min_distance=0.0, exclude=("x",), exclude_by=by
    )
    asked = asked.model_copy(update={"deduplicate": "none"})
    for path in choices.exclude:
        rows = read_rows(path)
        if by == ("id",):
            known.ids |= {row["id"]: Path(path).name for row in rows}
            continue
        tasks = ({"choices": asked.model_dump(mode="json"), "rows": unit} for unit in units(rows))
        for _, value in mapping.stream(executor, TREAT, tasks, ahead=2 * count + 2):
            if isinstance(value, execution_tasks.Failure):
                raise CrystallmError(f"{path!r} cannot be read in a worker process: {value.reason}")
            for record in value:
                if "id" in by:
                    known.ids[record["id"]] = Path(path).name
                known.n_unreadable += bool(record["step"])
                if record["step"]:
                    continue
                if "formula-group" in by:
                    known.pairs[record["formula"], record["space_group"]] = record["id"]
                if "structure" in by:
                    known.texts.setdefault(record["formula"], []).append((record["id"], record["cif"]))
    return known


def _equal_to_known(
    rows: Iterable[tuple[int, str, Mapping[str, Any]]],
    choices: PrepareOptions,
    known: Exclusions,
    count: int,
    executor: Executor | None,
) -> dict[int, str]:
    """Rows that the structure matcher finds equal to a known crystal, and to which."""
    import numpy as np

    from crystallm.language import get_language
    from crystallm.structures.known_structures import known_equals

    numbers, texts = [], []
    for number, _, record in rows:
        numbers.append(number)
        if choices.language == "none":
            texts.append(record["cif"])
        else:
            ids = np.frombuffer(record["ids"], dtype="<u2").tolist()
            texts.append(get_language(choices.language).standard_text(ids))
    entries = itertools.chain.from_iterable(known.texts.values())
    found = known_equals(texts, entries, workers=count, executor=executor)
    return {
        number: f"structure: {name}" for number, name in zip(numbers, found, strict=True) if name is not None
    }
