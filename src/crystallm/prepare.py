"""Collections of structures -> token shards.

Reads CSV and Parquet files with a column of CIF texts, turns every row into ids of a language, and writes a
data set folder (see `dataset` for its files) with `rows.parquet` (id, source, split, formula, space group,
tokens) and `rejected.parquet` (id, source, step, reason). Nothing vanishes: each row ends in one of the two.

It refuses to know networks and training.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np

from crystallm import dataset
from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SPLITS = ("train", "val", "test")
ID_COLUMNS = ("material_id", "id")
CHUNK = 200  # rows a unit of work


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


def read_rows(spec: str) -> Iterator[Row]:
    """Rows of an input `PATH` or `PATH=SPLIT`.

    Without a split the file's own column `split` decides, else all rows are for training.

    Raises:
        InputError: no such file, an unknown ending or split, or no column of CIF texts.
    """
    name, _, split = spec.partition("=")
    if split and split not in SPLITS:
        raise InputError(f"{spec!r}: no split {split!r}; give one of {', '.join(SPLITS)}")
    path = Path(name)
    if not path.is_file():
        raise InputError(f"no file {name!r}: give a CSV(.gz) or Parquet file with a column 'cif'")
    if path.name.endswith((".csv", ".csv.gz")):
        records = _csv_records(path)
    elif path.suffix == ".parquet":
        records = _parquet_records(path)
    else:
        raise InputError(f"{name!r} is neither CSV(.gz) nor Parquet by its ending")
    for number, record in enumerate(records):
        if "cif" not in record:
            raise InputError(f"{name!r} has no column 'cif'; its columns: {', '.join(map(str, record))}")
        row_id = next((str(record[c]) for c in ID_COLUMNS if record.get(c)), str(number))
        place = split or str(record.get("split") or "train")
        if place not in SPLITS:
            raise InputError(f"{name!r}, row {number}: no split {place!r}; give one of {', '.join(SPLITS)}")
        yield Row(row_id, path.name, place, str(record["cif"]))


def _csv_records(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8") as handle:
            yield from csv.DictReader(cast("TextIO", handle))
    except (EOFError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read to its end ({error}): is it truncated?") from error


def _parquet_records(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = pq.ParquetFile(path)
        for batch in source.iter_batches(batch_size=CHUNK):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{str(path)!r} is no readable Parquet file ({error})") from error


def encode_row(row: Row, language_name: str, max_tokens: int) -> Encoded:
    """Read one CIF text and encode it; never raises on what the text holds."""
    from pymatgen.core import Structure

    from crystallm.language import get_language

    step = "read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_str(row.cif, fmt="cif")
            step = "encode"
            ids = get_language(language_name).encode(structure)
    except CrystallmError as error:
        return Encoded(row.id, row.source, row.split, None, step=step, reason=str(error))
    except Exception as error:  # noqa: BLE001 - parsers raise anything on bad text; the reason is kept
        return Encoded(
            row.id, row.source, row.split, None, step=step, reason=f"{type(error).__name__}: {error}"
        )
    formula = structure.composition.reduced_formula
    if len(ids) > max_tokens:
        reason = f"more than {max_tokens} tokens"
        return Encoded(row.id, row.source, row.split, None, formula, step="length", reason=reason)
    return Encoded(row.id, row.source, row.split, ids, formula)


def _encode_chunk(work: tuple[list[Row], str, int]) -> list[Encoded]:
    rows, language_name, max_tokens = work
    return [encode_row(row, language_name, max_tokens) for row in rows]


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
        workers: processes.
        progress: called with the number of rows done.

    Raises:
        InputError: an input that cannot be read, or a folder that holds something.
    """
    from crystallm.language import get_language

    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{str(folder)!r} exists and is not empty: give a new folder")
    chosen = get_language(language)
    done: list[Encoded] = []
    rows = (row for spec in inputs for row in read_rows(spec))
    chunks = iter(lambda: list(islice(rows, CHUNK)), [])
    work = ((chunk, language, max_tokens) for chunk in chunks)
    if workers == 1:
        for part in map(_encode_chunk, work):
            done += part
            if progress:
                progress(len(done))
    else:
        with ProcessPoolExecutor(workers) as pool:
            for part in pool.map(_encode_chunk, work):
                done += part
                if progress:
                    progress(len(done))
    return _write(folder, done, chosen.name, len(chosen.vocabulary()), list(inputs))


def _write(folder: Path, done: list[Encoded], language: str, vocab_size: int, inputs: list[str]) -> Report:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = [e for e in done if e.ids is not None]
    refused = [e for e in done if e.ids is None]
    crystals, tokens, reasons = {}, {}, dict[str, int]()
    with dataset.new_folder(folder) as place:
        for split in SPLITS:
            streams = [np.array(e.ids, dtype=np.uint16) for e in kept if e.split == split]
            dataset.write_split(place, split, streams)
            crystals[split], tokens[split] = len(streams), sum(map(len, streams))
        fields = {"id": "row_id", "source": "source", "split": "split", "formula": "formula"}
        columns: dict[str, Any] = {name: [getattr(e, field) for e in kept] for name, field in fields.items()}
        columns["tokens"] = [len(e.ids or ()) for e in kept]
        pq.write_table(pa.table(columns), place / "rows.parquet")
        names = {"id": "row_id", "source": "source", "split": "split", "step": "step", "reason": "reason"}
        schema = pa.schema([(name, pa.string()) for name in names])
        pq.write_table(
            pa.table({n: [getattr(e, f) for e in refused] for n, f in names.items()}, schema=schema),
            place / "rejected.parquet",
        )
        for entry in refused:
            key = f"{entry.step}: {entry.reason[:60]}"
            reasons[key] = reasons.get(key, 0) + 1
        facts = {"language": language, "vocab_size": vocab_size, "inputs": [Path(i).name for i in inputs]}
        facts |= {"crystals": crystals, "tokens": tokens, "rejected": len(refused)}
        (place / dataset.FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return Report(language, crystals, tokens, dict(sorted(reasons.items(), key=lambda item: -item[1])))
