"""CIFs in a column of a CSV or Parquet file, and the results of our own runs."""

from __future__ import annotations

import csv
import gzip
import zlib
from typing import TYPE_CHECKING, Any, TextIO, cast

from crystallm.errors import InputError
from crystallm.sources import MAX_BYTES, Entry, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CIF = "cif"
ID_COLUMNS = ("material_id", "id")
RUN_COLUMNS = ("request", "sample", "text")
"""What our results have beside: where a crystal has no CIF, the text that was written stands for it."""
CHUNK = 200  # rows read at a time from a Parquet file
LARGEST_FIELD = 2**31 - 1  # characters of a CSV field; the csv module's limit is a C long, 32 bits on Windows


def read_table(path: Path) -> Iterator[Entry]:
    """The crystals of a table in its order; see `sources.read`."""
    number = -1
    for number, record in enumerate(records(path, (*ID_COLUMNS, *RUN_COLUMNS))):
        name = row_id(record, number)
        if all(record.get(column) is not None for column in RUN_COLUMNS[:2]):
            name = f"{record['request']}-{record['sample']}"
        text = as_text(record[CIF]) or as_text(record.get("text"))
        if len(text) > MAX_BYTES:
            yield too_large(name, len(text))
        elif text.strip():
            yield Entry(name, text)
        else:
            yield Entry(name, None, "the row has no text")
    if number < 0:
        raise InputError(f"{str(path)!r} holds no row")


def row_id(record: dict[str, Any], number: int) -> str:
    """The id of a row, its number where it has none."""
    return next((str(record[c]) for c in ID_COLUMNS if record.get(c) not in (None, "")), str(number))


def as_text(value: Any) -> str:
    """A cell's text; "" for none."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def records(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a CSV(.gz) or Parquet file: the column `cif`, and those of others that there are.

    Raises:
        InputError: another ending, no column of CIF texts, or a damaged file.
    """
    if path.name.lower().endswith((".csv", ".csv.gz")):
        return _csv_records(path)
    if path.suffix.lower() == ".parquet":
        return _parquet_records(path, columns)
    raise InputError(f"{str(path)!r} is neither CSV(.gz) nor Parquet by its ending")


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if CIF not in names:
        raise InputError(
            f"{str(path)!r} has no column 'cif'; its columns: {', '.join(names)[:200] or 'none'}"
        )


def _csv_records(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(LARGEST_FIELD)
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        # utf-8-sig: spreadsheets begin a file with a mark that would else belong to the first column's name
        with opener(path, "rt", newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(cast("TextIO", handle))
            _check_columns(path, reader.fieldnames or ())
            yield from reader
    except (EOFError, OSError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise InputError(f"{str(path)!r} cannot be read to its end ({error}): is it truncated?") from error


def _parquet_records(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as source:
            names = source.schema_arrow.names
            _check_columns(path, names)
            wanted = [name for name in (CIF, *columns) if name in names]
            for batch in source.iter_batches(batch_size=CHUNK, columns=wanted):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{str(path)!r} is no readable Parquet file ({error})") from error
