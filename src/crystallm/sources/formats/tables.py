"""Read crystals from the columns of CSV and Parquet files, and from results of our own runs."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError, one_line
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, NoCrystalsError, clean, stem, too_large
from crystallm.sources.formats.json_documents import OPTIMADE, OPTIMADE_MORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

CIF = "cif"
ID_COLUMNS = ("material_id", "id", "immutable_id")
SPLIT = "split"
RUN_COLUMNS = ("request", "sample", "text")
"""Column of our results with the generated text, which is read if a crystal has no CIF."""
FILE = "file"
"""Column of our results with the name of the file of a crystal, if it has one."""
KEPT = "kept"
"""Column of our results: false for what the options of the run have thrown out of its answers."""
CHUNK = 200  # rows read at a time from a Parquet file
SHARED_BYTES = 4_100_000  # stored of a column whose texts are kept once
BATCH_BYTES = 500_000_000  # of a batch, at most, if all of its rows share the largest text
BUFFER = 1 << 20  # bytes read at a time of one of its columns
LARGEST_FIELD = 100_000_000  # characters of a CSV field or line


@dataclass(frozen=True, slots=True)
class _Form:
    """How the rows of a table hold crystals: the format and its columns."""

    format: str
    columns: tuple[str, ...]
    more: tuple[str, ...] = ()


FORMS = (
    _Form("cif", (CIF,), (*RUN_COLUMNS, FILE, KEPT)),
    _Form("pymatgen", ("structure",)),
    _Form("optimade", OPTIMADE, OPTIMADE_MORE),
)
"""The first layout whose columns all exist is used."""


def read_table(path: Path, columns: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the crystals of a table in its order; see `sources.read`."""
    if not columns:
        return (entry for entry, _ in rows(path))
    return (
        replace(entry, values={name: record[name] for name in columns if name in record})
        for entry, record in rows(path, columns)
    )


def rows(
    path: Path, columns: Sequence[str] = (), *, everything: bool = False
) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Yield the crystals of a table, with the values of further columns.

    Args:
        path: of the table.
        columns: whose values are wanted.
        everything: also rows of our results that their run has thrown out.

    Raises:
        InputError: another ending, no columns of crystals, no row, or a damaged file.
    """
    number = -1
    for number, (form, record) in enumerate(_records(path, columns)):
        if record.get(KEPT) is False and not everything:
            continue
        name = row_id(record, number)
        if all(record.get(column) is not None for column in RUN_COLUMNS[:2]):
            name = f"{record['request']}-{record['sample']}"
            if record.get(FILE):  # in a large run with a folder before it
                name = stem(clean(record[FILE]).rsplit("/", maxsplit=1)[-1]) or name
        yield _entry(name, form, record), record
    if number < 0:
        raise NoCrystalsError(f"{str(path)!r} holds no row")


def _entry(name: str, form: _Form, record: dict[str, Any]) -> Entry:
    text = _text(form, record)
    split = clean(record.get(SPLIT) or "")
    if len(text) > MAX_BYTES:
        return too_large(name, len(text), form.format, "row")
    if not text.strip():
        return Entry(name, None, "the row has no text", form.format, split)
    return Entry(name, text, "", form.format, split)


def _text(form: _Form, record: dict[str, Any]) -> str:
    if form.format == "cif":
        return as_text(record[CIF]) or as_text(record.get("text"))
    if form.format == "pymatgen":
        value = record["structure"]
        return json.dumps(value, default=str) if isinstance(value, dict) else as_text(value)
    cells = {name: record[name] for name in (*form.columns, *form.more) if record.get(name) not in (None, "")}
    if not all(name in cells for name in form.columns):
        return ""
    return json.dumps({name: _value(cell) for name, cell in cells.items()}, default=str)


def _value(cell: Any) -> Any:
    """Return a list of a table; in CSV it is JSON."""
    if isinstance(cell, str):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def row_id(record: dict[str, Any], number: int) -> str:
    """Return the id of a row, or its number if it has none."""
    return next((clean(record[c]) for c in ID_COLUMNS if record.get(c) not in (None, "")), str(number))


def as_text(value: Any) -> str:
    """Return a value as text; "" for none."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _records(path: Path, columns: Sequence[str]) -> Iterator[tuple[_Form, dict[str, Any]]]:
    """Yield the rows of a table, with its layout."""
    if path.name.lower().endswith((".csv", ".csv.gz")):
        return _csv_records(path)
    if path.suffix.lower() == ".parquet":
        return _parquet_records(path, columns)
    raise InputError(f"{str(path)!r} is neither CSV(.gz) nor Parquet by its ending")


def _form(path: Path, names: Sequence[str]) -> _Form:
    found = next((form for form in FORMS if all(name in names for name in form.columns)), None)
    if found is None:
        raise InputError(
            f"{str(path)!r} has no column 'cif', nor 'structure', nor those of OPTIMADE; its columns: "
            f"{one_line(', '.join(names)) or 'none'}"
        )
    return found


def _csv_records(path: Path) -> Iterator[tuple[_Form, dict[str, Any]]]:
    csv.field_size_limit(LARGEST_FIELD)
    ended, whole = False, True

    def lines(handle: io.TextIOWrapper) -> Iterator[str]:
        nonlocal ended, whole
        while line := handle.readline(LARGEST_FIELD + 1):
            if len(line) > LARGEST_FIELD:
                raise InputError(f"{str(path)!r} has a line of more than {LARGEST_FIELD / 1e6:g} MB")
            whole = line.endswith(("\n", "\r"))
            yield line
        ended = True

    # utf-8-sig: spreadsheets begin a file with a mark that would else belong to the first column's name
    with (
        streams.telling(path, csv.Error),
        streams.binary(path) as stream,
        closing(io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")) as handle,
    ):
        reader = csv.DictReader(lines(handle))
        form = _form(path, reader.fieldnames or ())
        for record in reader:
            # A row that needs the end of the file to end is cut within a quoted field.
            if ended or (not whole and None in record.values()):
                raise streams.broken(path, "the last row has no end")
            yield form, record


def _parquet_records(path: Path, columns: Sequence[str]) -> Iterator[tuple[_Form, dict[str, Any]]]:
    forms: list[_Form] = []

    def wanted(names: list[str]) -> list[str]:
        forms.append(_form(path, names))
        asked = (*forms[0].columns, *forms[0].more, *ID_COLUMNS, SPLIT, *columns)
        return [name for name in dict.fromkeys(asked) if name in names]

    for record in parquet_rows(path, wanted):
        yield forms[0], record


def parquet_rows(path: Path, wanted: Callable[[list[str]], list[str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, of which batches of bounded size are read at a time.

    Args:
        wanted: returns the columns to read, from all there are; may raise.

    Raises:
        InputError: the file is damaged, or unpacks to too much.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    most = streams.most_bytes(path)
    try:
        metadata = pq.read_metadata(path)
        if _least_bytes(metadata) > most:
            raise streams.bomb(path)
        shared, n_rows = _reading(metadata)
        # Two options, else whole row groups are read ahead: often, that is the whole file.
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False, read_dictionary=shared) as source:
            columns = wanted(source.schema_arrow.names)
            total = 0
            for batch in source.iter_batches(batch_size=n_rows, columns=columns):
                size = sum(map(_unpacked_bytes, batch.columns))
                total += size
                if total > most:
                    raise streams.bomb(path)
                step = n_rows if size < BATCH_BYTES / 5 else 1
                for start in range(0, batch.num_rows, step):
                    yield from batch.slice(start, step).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:  # KeyError: a damaged name
        why = one_line(error)
        raise InputError(f"{str(path)!r} is no readable Parquet file ({why}): is it truncated?") from error


def _leaves(metadata: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    for k in range(metadata.num_row_groups):
        group = metadata.row_group(k)
        yield from (group.column(i) for i in range(group.num_columns))


def _least_bytes(metadata: pq.FileMetaData) -> int:
    """Return how many bytes a file at least unpacks to: equal values can be packed into none."""
    return sum(max(leaf.total_uncompressed_size, 4 * leaf.num_values) for leaf in _leaves(metadata))


def _reading(metadata: pq.FileMetaData) -> tuple[list[str], int]:
    """Return the columns whose texts stay in memory once, whatever rows share them, and rows of a batch.

    A few bytes can stand for a batch of large texts, if rows share one text. The texts of a column together
    are no larger than what is stored of it.
    """
    stored: dict[str, int] = {}
    for leaf in _leaves(metadata):
        if leaf.physical_type == "BYTE_ARRAY":
            stored[leaf.path_in_schema] = max(
                stored.get(leaf.path_in_schema, 0), leaf.total_uncompressed_size
            )
    shared = [path for path, size in stored.items() if size <= SHARED_BYTES and "." not in path]
    largest = max((size for path, size in stored.items() if path not in shared), default=1)
    return shared, max(1, min(CHUNK, BATCH_BYTES // max(1, largest)))


def _unpacked_bytes(array: pa.Array) -> int:
    """Return the bytes of the values of a column, a shared text counted for each row that has it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        sizes = pc.binary_length(array.dictionary)
        return int(pc.sum(sizes.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(map(_unpacked_bytes, array.flatten()))
    if pa.types.is_map(array.type):
        return _unpacked_bytes(array.keys) + _unpacked_bytes(array.items)
    if pa.types.is_nested(array.type):  # a list
        return _unpacked_bytes(array.flatten())
    return int(array.nbytes)
