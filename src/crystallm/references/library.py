"""A library of known crystals, sorted by proportions and prototype, in one compact file.

A Parquet file with a row a crystal:

    id, source   as in the collection it comes from
    prototype    its name (see `prototypes.CrystalType.text`), which begins with the proportions
    elements     atomic number of the element of each role, a byte each
    numbers      free cell parameters, then the free coordinates of each orbit, little-endian int16

Libraries may be joined, and crystals left out. Does not know how crystals are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from crystallm.crystallography import elements, formula, space_groups
from crystallm.errors import InputError
from crystallm.references.prototypes import CrystalType, PrototypeMember, proportions_text
from crystallm.storage import tables

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

COLUMNS = {
    "id": "string",
    "source": "string",
    "prototype": "string",
    "elements": "binary",
    "numbers": "binary",
}
"""Columns of a library."""
FORMAT = {"crystallm.references": "1"}
"""Metadata that marks the file of a library."""


@dataclass(frozen=True)
class Library:
    """Known crystals.

    Attributes:
        table: their rows, sorted by prototype; `prototype` and `source` are dictionaries.
    """

    table: pa.Table

    @classmethod
    def read(cls, *paths: str | os.PathLike[str]) -> Self:
        """Read libraries and join them.

        Raises:
            InputError: no such file, or a file that is no library.
            CrystallmError: a file cannot be read.
        """
        import pyarrow as pa

        found = []
        for path in map(Path, paths):
            if not is_library(path):
                raise InputError(f"{str(path)!r} is no library: crystallm references build makes one")
            found.append(_plain(tables.read_table(path, list(COLUMNS))))
        return cls(_sorted(pa.concat_tables(found)))

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, PrototypeMember]]) -> Self:
        """Make a library of crystals: id, source, member of a prototype."""
        import pyarrow as pa

        return cls(
            _sorted(pa.Table.from_pylist([row_of(*row) for row in rows], schema=tables.schema(COLUMNS)))
        )

    @classmethod
    def joined(cls, libraries: Sequence[Library]) -> Self:
        """Join libraries."""
        import pyarrow as pa

        if len(libraries) == 1:
            return cls(libraries[0].table)
        return cls(_sorted(pa.concat_tables([_plain(library.table) for library in libraries])))

    def write(self, path: Path) -> None:
        """Write the library to a file; raises as `storage.files.write_atomically`."""
        import pyarrow as pa
        from pyarrow import parquet

        from crystallm.storage.files import write_atomically

        sink = pa.BufferOutputStream()
        parquet.write_table(
            self.table.replace_schema_metadata(FORMAT), sink, compression="zstd", compression_level=12
        )
        write_atomically(path, bytes(sink.getvalue()))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def _column(self) -> dict[str, Any]:
        """Columns in one piece each."""
        return {name: _whole(self.table.column(name)) for name in COLUMNS}

    @cached_property
    def codes(self) -> NDArray[np.int32]:
        """Index of the prototype of each row in `prototype_texts`, [n_rows]."""
        indices: NDArray[np.int32] = self._column["prototype"].indices.to_numpy()
        return indices

    @cached_property
    def prototype_texts(self) -> list[str]:
        """Names of the prototypes."""
        texts: list[str] = self._column["prototype"].dictionary.to_pylist()
        return texts

    @cached_property
    def _ranges(self) -> dict[str, tuple[int, int]]:
        """First row and end of the rows of each proportions."""
        if not len(self):
            return {}
        heads = [text.partition(" ")[0] for text in self.prototype_texts]
        kinds = {head: i for i, head in enumerate(dict.fromkeys(heads))}
        kind = np.array([kinds[head] for head in heads])[self.codes]
        starts = [0, *(np.flatnonzero(np.diff(kind)) + 1).tolist()]
        return {
            heads[self.codes[start]]: (start, end)
            for start, end in zip(starts, [*starts[1:], len(self)], strict=True)
        }

    def range_of(self, proportions: Sequence[int]) -> tuple[int, int]:
        """Return first row and end of the crystals of some proportions."""
        return self._ranges.get(proportions_text(proportions), (0, 0))

    def numbers_of(self, proportions: Sequence[int]) -> NDArray[np.uint8]:
        """Return the atomic numbers of all crystals of some proportions, [n, n_roles]."""
        start, end = self.range_of(proportions)
        content = self._column["elements"][start:end]
        buffers, offset = content.buffers(), content.offset
        bounds = np.frombuffer(buffers[1], dtype=np.int32)[offset : offset + len(content) + 1]
        if not len(content):
            return np.zeros((0, len(proportions)), np.uint8)
        return np.frombuffer(buffers[2], dtype=np.uint8)[bounds[0] : bounds[-1]].reshape(-1, len(proportions))

    def prototype(self, code: int) -> CrystalType:
        """Return a prototype by its index."""
        if code not in self._parsed:
            self._parsed[code] = CrystalType.parse(self.prototype_texts[code])
        return self._parsed[code]

    @cached_property
    def _parsed(self) -> dict[int, CrystalType]:
        return {}

    def parameters(self, row: int) -> NDArray[np.int16]:
        """Return free cell parameters and coordinates of a row."""
        return np.frombuffer(self._column["numbers"][row].as_py(), dtype="<i2")

    def member(self, row: int) -> PrototypeMember:
        """Return the crystal of a row."""
        prototype = self.prototype(int(self.codes[row]))
        numbers = self.parameters(row).tolist()
        group = space_groups.get(prototype.space_group)
        n_cell = len(group.free_cell)
        coordinates, at = [], n_cell
        for _, position in prototype.positions:
            n_free = len(group.wyckoff[position].free)
            coordinates.append(tuple(numbers[at : at + n_free]))
            at += n_free
        symbols = tuple(
            elements.SYMBOLS_BY_NUMBER[number - 1] for number in self._column["elements"][row].as_py()
        )
        return PrototypeMember(prototype, symbols, tuple(coordinates), tuple(numbers[:n_cell]))

    def id(self, row: int) -> str:
        """Return the id of a row."""
        return str(self._column["id"][row].as_py())

    def source(self, row: int) -> str:
        """Return the name of the collection that a row comes from."""
        return str(self._column["source"][row].as_py())

    def formula(self, row: int) -> str:
        """Return the reduced formula of a row."""
        prototype = self.prototype(int(self.codes[row]))
        return _formula(prototype.proportions, self._column["elements"][row].as_py())

    def without(
        self,
        *,
        ids: Collection[str] = (),
        formula_groups: Collection[tuple[str, int]] = (),
        formulas: Collection[str] = (),
    ) -> tuple[Self, list[int]]:
        """Leave crystals out.

        Args:
            ids: of crystals.
            formula_groups: reduced formulas as `reduced` returns them, with the number of a space group.
            formulas: such formulas, of any group.

        Returns:
            The other crystals, and the rows that were left out.
        """
        left_out = [
            row
            for row, (name, code, content) in enumerate(
                zip(
                    self._column["id"].to_pylist(),
                    self.codes.tolist(),
                    self._column["elements"].to_pylist(),
                    strict=True,
                )
            )
            if name in ids
            or (text := _formula(self.prototype(code).proportions, content)) in formulas
            or (text, self.prototype(code).space_group) in formula_groups
        ]
        keep = np.ones(len(self), bool)
        keep[left_out] = False
        return type(self)(_sorted(self.table.filter(keep))), left_out


def is_library(path: Path) -> bool:
    """Return whether a file is a library."""
    return (
        path.is_file()
        and path.suffix == ".parquet"
        and not FORMAT.items() - tables.read_metadata(path).items()
    )


def row_of(name: str, source: str, member: PrototypeMember) -> dict[str, Any]:
    """Return the row of a crystal."""
    numbers = [*member.cell, *(value for point in member.coordinates for value in point)]
    return {
        "id": name,
        "source": source,
        "prototype": member.prototype.text,
        "elements": bytes(elements.get(symbol).number for symbol in member.elements),
        "numbers": np.array(numbers, dtype="<i2").tobytes(),
    }


def reduced(counts: dict[str, int]) -> str:
    """Return the reduced formula of a composition, as the crystals of a library have it."""
    return formula.cell("".join(f"{symbol}{count}" for symbol, count in counts.items())).reduced_formula


def _formula(proportions: Sequence[int], numbers: bytes) -> str:
    return reduced(dict(zip(_symbols(numbers), proportions, strict=True)))


def _symbols(numbers: bytes) -> tuple[str, ...]:
    return tuple(elements.SYMBOLS_BY_NUMBER[number - 1] for number in numbers)


def _plain(table: pa.Table) -> pa.Table:
    """Return rows without dictionaries."""
    return table.select(list(COLUMNS)).cast(tables.schema(COLUMNS))


def _sorted(table: pa.Table) -> pa.Table:
    """Return rows sorted by prototype, then elements and id; names as dictionaries."""
    import pyarrow.compute as pc

    plain = _plain(table)
    order = pc.sort_indices(
        plain, sort_keys=[(name, "ascending") for name in ("prototype", "elements", "id")]
    )
    rows = plain.take(order).combine_chunks()
    for name in ("source", "prototype"):
        index = rows.column_names.index(name)
        rows = rows.set_column(index, name, rows.column(name).dictionary_encode())
    return rows


def _whole(column: pa.ChunkedArray) -> Any:
    import pyarrow as pa

    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
