"""Collections of structures -> token shards.

Reads CSV and Parquet files with a column of CIF texts, turns every row into ids of a language, and writes a
data set folder (see `dataset` for its files) with `rows.parquet` (id, source, split, formula, tokens) and
`rejected.parquet` (id, source, split, step, reason). Nothing vanishes: each row ends in one of the two.

It refuses to know networks and training.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm import dataset, runs
from crystallm import workers as processes
from crystallm.errors import CrystallmError, InputError
from crystallm.sources import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pyarrow as pa

SPLITS = ("train", "val", "test")
WAVE = 20_000  # rows held in memory at a time; the worker processes start anew for each wave
SECONDS = 60.0  # that one row may take in a worker process; the usual one takes a hundredth


@dataclass(frozen=True)
class Row:
    """One crystal of a collection: identifier, CIF text, and the split that it belongs to."""

    id: str
    source: str
    split: str
    cif: str


@dataclass(frozen=True)
class Encoded:
    """What became of a row: its ids, or the step that refused it and why."""

    row_id: str
    source: str
    split: str
    ids: list[int] | None
    formula: str = ""
    step: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """Counts of a preparation: crystals and tokens in each split, rows refused by reason."""

    language: str
    crystals: dict[str, int]
    tokens: dict[str, int]
    rejected: dict[str, int]


def _place_and_split(spec: str) -> tuple[Path, str]:
    """The file of an input and the split that it names, if any. A file's own name may hold a `=`."""
    name, sign, split = spec.rpartition("=")
    if not sign or Path(spec).is_file() or not re.fullmatch(r"\w+", split):
        name, split = spec, ""
    if split and split not in SPLITS:
        raise InputError(f"{spec!r}: no split {split!r}; give one of {', '.join(SPLITS)}")
    if not Path(name).is_file():
        raise InputError(f"no file {name!r}: give a CSV(.gz) or Parquet file with a column 'cif'")
    return Path(name), split


def read_rows(spec: str) -> Iterator[Row]:
    """Rows of an input `PATH` or `PATH=SPLIT`.

    Without a split the file's own column `split` decides, else all rows are for training.

    Raises:
        InputError: no such file, an unknown ending or split, no column of CIF texts, or a damaged file.
    """
    path, split = _place_and_split(spec)
    for number, record in enumerate(table.records(path, (*table.ID_COLUMNS, "split"))):
        place = split or str(record.get("split") or "train")
        if place not in SPLITS:
            raise InputError(
                f"{str(path)!r}, row {number}: no split {place!r}; give one of {', '.join(SPLITS)}"
            )
        yield Row(table.row_id(record, number), path.name, place, table.as_text(record[table.CIF]))


def encode_row(row: Row, language_name: str, max_tokens: int) -> Encoded:
    """Read one CIF text and encode it; never raises on what the text holds."""
    from pymatgen.core import Structure

    from crystallm.language import get_language

    def refused(step: str, reason: str, formula: str = "") -> Encoded:
        return Encoded(row.id, row.source, row.split, None, formula, step, " ".join(reason.split()))

    if not row.cif.strip():
        return refused("read", "no text")
    step = "read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_str(row.cif, fmt="cif")
            step = "encode"
            ids = get_language(language_name).encode(structure)
            formula = structure.composition.reduced_formula
    except CrystallmError as error:
        return refused(step, str(error))
    except Exception as error:  # noqa: BLE001 - parsers raise anything on bad text; the reason is kept
        return refused(step, f"{type(error).__name__}: {error}")
    if len(ids) > max_tokens:
        return refused("length", f"more than {max_tokens} tokens", formula)
    return Encoded(row.id, row.source, row.split, ids, formula)


def encode_record(task: dict[str, Any]) -> dict[str, Any]:
    """`encode_row` from plain data to plain data, as worker processes want it."""
    return asdict(encode_row(Row(**task["row"]), task["language"], task["max_tokens"]))


def _encode_all(
    rows: Sequence[Row], language: str, max_tokens: int, workers: int, on_done: Callable[[], None]
) -> Iterator[Encoded]:
    """Encode rows, in this process or in others that may be lost."""
    if workers == 1:
        for row in rows:
            yield encode_row(row, language, max_tokens)
            on_done()
        return
    tasks = [{"row": asdict(row), "language": language, "max_tokens": max_tokens} for row in rows]
    found = processes.run(
        "crystallm.prepare:encode_record",
        tasks,
        workers=workers,
        seconds=SECONDS,
        on_done=lambda _: on_done(),
    )
    for row, value in zip(rows, found, strict=True):
        if isinstance(value, processes.Lost):
            yield Encoded(row.id, row.source, row.split, None, step="lost", reason=value.reason)
        else:
            yield Encoded(**value)


class _Counter:
    """Reports how many rows are done, from whichever thread."""

    def __init__(self, report: Callable[[int], None] | None) -> None:
        self.report = report
        self.done = 0
        self.lock = threading.Lock()

    def __call__(self) -> None:
        with self.lock:
            self.done += 1
            if self.report is not None:
                self.report(self.done)


def prepare(
    inputs: Sequence[str],
    out: str | Path,
    *,
    language: str = "orbits",
    max_tokens: int = 1024,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Encode collections and write a data set folder.

    Args:
        inputs: `PATH` or `PATH=SPLIT`, CSV(.gz) or Parquet with a column `cif`.
        out: folder to make; must not exist or be empty.
        language: `orbits` or `cif`.
        max_tokens: longer crystals are refused; the context of the network to be trained.
        workers: processes. One means this process; a row that crashes or hangs one of several is refused.
        progress: called with the number of rows done; with several workers, from another thread.

    Raises:
        InputError: an input that cannot be read or holds no row, or a folder that holds something.
        CrystallmError: the folder cannot be written.
    """
    from crystallm.language import get_language

    folder = Path(out)
    runs.check_place(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{str(folder)!r} exists and is not empty: give a new folder")
    chosen = get_language(language)
    for spec in inputs:  # a wrong last input is told before hours of work on the first
        if next(read_rows(spec), None) is None:
            raise InputError(f"{spec!r} holds no row")
    done: list[Encoded] = []
    rows = (row for spec in inputs for row in read_rows(spec))
    counter = _Counter(progress)
    for wave in _waves(rows):
        done += _encode_all(wave, language, max_tokens, workers, counter)
    return _write(folder, done, chosen.name, len(chosen.vocabulary()), list(inputs))


def _waves(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    return iter(lambda: list(islice(rest, WAVE)), [])


def _write(folder: Path, done: list[Encoded], language: str, vocab_size: int, inputs: list[str]) -> Report:
    import pyarrow.parquet as pq

    kept = [e for e in done if e.ids is not None]
    refused = [e for e in done if e.ids is None]
    crystals, tokens, reasons = {}, {}, dict[str, int]()
    with dataset.new_folder(folder) as place:
        for split in SPLITS:
            streams = [np.array(e.ids, dtype=np.uint16) for e in kept if e.split == split]
            dataset.write_split(place, split, streams)
            crystals[split], tokens[split] = len(streams), sum(map(len, streams))
        pq.write_table(_table(kept, ("id", "source", "split", "formula", "tokens")), place / "rows.parquet")
        pq.write_table(
            _table(refused, ("id", "source", "split", "step", "reason")), place / "rejected.parquet"
        )
        for entry in refused:
            key = f"{entry.step}: {entry.reason[:60]}"
            reasons[key] = reasons.get(key, 0) + 1
        facts = {"language": language, "vocab_size": vocab_size, "inputs": [Path(i).name for i in inputs]}
        facts |= {"crystals": crystals, "tokens": tokens, "rejected": len(refused)}
        (place / dataset.FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return Report(language, crystals, tokens, dict(sorted(reasons.items(), key=lambda item: -item[1])))


def _table(entries: Sequence[Encoded], names: Sequence[str]) -> pa.Table:
    """Columns of rows; their types do not depend on how many rows there are."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.int64() if name == "tokens" else pa.string()) for name in names])
    records = [{**vars(e), "id": e.row_id, "tokens": len(e.ids or ())} for e in entries]
    return pa.Table.from_pylist([{name: record[name] for name in names} for record in records], schema=schema)
