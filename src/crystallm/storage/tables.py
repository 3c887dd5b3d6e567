"""Parquet and CSV tables."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.storage.files import saying, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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


def read(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file.

    Raises:
        InputError: the file cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with saying(f"{path} cannot be read"):
        try:
            rows: list[dict[str, Any]] = parquet.read_table(
                path, columns=None if columns is None else list(columns)
            ).to_pylist()
        except pa.ArrowInvalid as error:
            raise CrystallmError(
                f"{path} is damaged ({str(error).splitlines()[0]}): delete it and run again"
            ) from None
    return rows
