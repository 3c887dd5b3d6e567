"""Parquet and CSV tables."""

from __future__ import annotations

import contextlib
import csv
import io
from typing import TYPE_CHECKING, Any, Self

from crystallm.errors import CrystallmError, one_line
from crystallm.storage.files import saying, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa


def schema(columns: Mapping[str, str], metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """Columns of a Parquet file by name and pyarrow type name, and what else its head says."""
    import pyarrow as pa

    fields = [(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
    return pa.schema(fields, metadata=None if metadata is None else dict(metadata))


def as_parquet(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Rows as the content of a Parquet file, with these columns (name and pyarrow type name)."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema(columns, metadata))
    parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Write rows as CSV or Parquet, by the ending; raises as `write_atomically`."""
    if path.suffix.lower() == ".parquet":
        write_atomically(path, as_parquet(rows, columns))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a Parquet file as a table.

    Raises:
        CrystallmError: the file cannot be read, or is damaged.
    """
    from pyarrow import parquet

    with _readable(path), parquet.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that `as_parquet` stored in a Parquet file; raises as `read_table`."""
    from pyarrow import parquet

    with _readable(path):
        metadata = parquet.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    with saying(f"{path} cannot be read"):
        try:
            yield
        except pa.ArrowInvalid as error:
            raise CrystallmError(f"{path} is damaged ({one_line(error)}): delete it and run again") from None


BATCH = 20_000
"""Rows that are written to a table at a time."""


class TableWriter:
    """A Parquet file that grows by rows and takes its place when the `with` block ends well."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        self._path, self._columns = path, columns
        self.names = tuple(columns)
        self._new = path.with_name(f".{path.name}.tmp")
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._writer.schema))
        self._rows = []

    def __enter__(self) -> Self:
        from pyarrow import parquet

        self._writer = parquet.ParquetWriter(self._new, schema(self._columns))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._new.replace(self._path)
        else:
            self._new.unlink(missing_ok=True)
