"""A library of known crystals, sorted by proportions and prototype, in one compact file.

A Parquet file with a row a crystal:

    id, source   as in the collection it comes from
    prototype    its name (see `prototypes.CrystalType.text`), which begins with the proportions
    elements     atomic number of the element of each role, a byte each
    numbers      free cell parameters, then the free coordinates of each orbit, little-endian int16
    energy       eV/atom, by the energy model that the metadata of the file names; null if not known

Libraries may be joined, and crystals left out. Does not know how crystals are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
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
    "energy": "float32",
}
"""Columns of a library; one without energies may lack the last."""
FORMAT = {"crystallm.references": "1"}
"""Metadata that marks the file of a library."""
_ENCODED = ("source", "prototype")
"""Columns that are stored as dictionaries."""
_ENERGY_MODEL = "crystallm.energy_model"


@dataclass(frozen=True)
class Library:
    """Known crystals.

    Attributes:
        table: their rows, sorted by prototype; `prototype` and `source` are dictionaries.
        holds_answers: whether it may hold the requested crystals; not where those of a benchmark
            were left out.
        energy_model: name of the one that its energies are from; None: it has none.
    """

    table: pa.Table
    holds_answers: bool = True
    energy_model: str | None = None

    @classmethod
    def read(cls, *paths: str | os.PathLike[str]) -> Self:
        """Read libraries and join them; energies are kept of those that have the model of the first.

        Raises:
            InputError: no such file, or a file that is no library.
            CrystallmError: a file cannot be read.
        """
        found = []
        for path in map(Path, paths):
            if not is_library(path):
                raise InputError(f"{str(path)!r} is no library: crystallm references build makes one")
            table = tables.read_table(path)
            table = table if _is_sorted(table) else _sorted(table)
            found.append(cls(table, energy_model=tables.read_metadata(path).get(_ENERGY_MODEL)))
        return cls.joined(found)

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, PrototypeMember]]) -> Self:
        """Make a library of crystals: id, source, member of a prototype."""
        import pyarrow as pa

        return cls(
            _sorted(pa.Table.from_pylist([row_of(*row) for row in rows], schema=tables.schema(COLUMNS)))
        )

    @classmethod
    def joined(cls, libraries: Sequence[Library]) -> Self:
        """Join libraries; energies are kept of those that have the model of the first that has one."""
        import pyarrow as pa

        if len(libraries) == 1:
            return cls(libraries[0].table, energy_model=libraries[0].energy_model)
        model = next((one.energy_model for one in libraries if one.energy_model is not None), None)
        found = [
            _plain(one.table if one.energy_model == model else one.table.drop_columns("energy"))
            for one in libraries
        ]
        return cls(_sorted(pa.concat_tables(found)), energy_model=model)

    def write(self, path: Path) -> None:
        """Write the library to a file; raises as `storage.files.write_atomically`."""
        import pyarrow as pa
        from pyarrow import parquet

        from crystallm.storage.files import write_atomically

        metadata = FORMAT if self.energy_model is None else FORMAT | {_ENERGY_MODEL: self.energy_model}
        sink = pa.BufferOutputStream()
        parquet.write_table(
            self.table.replace_schema_metadata(metadata), sink, compression="zstd", compression_level=12
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
        return _values(self._column["prototype"].indices, np.int32)

    @cached_property
    def prototype_sizes(self) -> NDArray[np.intp]:
        """Number of crystals of each prototype."""
        return np.bincount(self.codes, minlength=len(self.prototype_texts))

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

    @cached_property
    def energies(self) -> NDArray[np.float32]:
        """Energies, eV/atom, [n_rows]; NaN where not known."""
        return _values(self._column["energy"], np.float32)

    def with_energies(self, energies: NDArray[np.float32], model: str) -> Self:
        """Return the same crystals with energies, eV/atom, [n_rows], NaN where not known, of a model."""
        import pyarrow as pa

        column = pa.array(energies, pa.float32(), from_pandas=True)
        table = self.table.set_column(self.table.column_names.index("energy"), "energy", column)
        return replace(self, table=table, energy_model=model)

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

    def formulas_of(self, symbols: Collection[str]) -> list[str]:
        """Return the reduced formulas of crystals with no other elements: those with most of them first."""
        allowed = {elements.get(symbol).number for symbol in symbols}
        found: dict[str, int] = {}
        for code, content in zip(self.codes.tolist(), self._column["elements"].to_pylist(), strict=True):
            if allowed.issuperset(content):
                found[_formula(self.prototype(code).proportions, content)] = len(content)
        return sorted(found, key=lambda text: (-found[text], text))

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
        return replace(self, table=_sorted(self.table.filter(keep))), left_out


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
        "energy": None,
    }


def reduced(counts: dict[str, int]) -> str:
    """Return the reduced formula of a composition, as the crystals of a library have it."""
    return formula.cell("".join(f"{symbol}{count}" for symbol, count in counts.items())).reduced_formula


@lru_cache(maxsize=10_000)
def _formula(proportions: tuple[int, ...], numbers: bytes) -> str:
    return reduced(dict(zip(_symbols(numbers), proportions, strict=True)))


def _symbols(numbers: bytes) -> tuple[str, ...]:
    return tuple(elements.SYMBOLS_BY_NUMBER[number - 1] for number in numbers)


def _plain(table: pa.Table) -> pa.Table:
    """Return rows without dictionaries, with all columns."""
    import pyarrow as pa

    if "energy" not in table.column_names:
        table = table.append_column("energy", pa.nulls(len(table), pa.float32()))
    return table.select(list(COLUMNS)).cast(tables.schema(COLUMNS))


def _is_sorted(table: pa.Table) -> bool:
    """Return whether a table is as `_sorted` returns it and `Library.write` stores it."""
    import pyarrow as pa

    if not all(name in table.column_names and pa.types.is_dictionary(table[name].type) for name in _ENCODED):
        return False
    codes = _values(_whole(table["prototype"]).indices, np.int32)
    return "energy" in table.column_names and bool((codes[1:] >= codes[:-1]).all())


def _sorted(table: pa.Table) -> pa.Table:
    """Return rows sorted by prototype, then elements and id; names as dictionaries."""
    import pyarrow.compute as pc

    plain = _plain(table)
    order = pc.sort_indices(
        plain, sort_keys=[(name, "ascending") for name in ("prototype", "elements", "id")]
    )
    rows = plain.take(order).combine_chunks()
    for name in _ENCODED:
        index = rows.column_names.index(name)
        rows = rows.set_column(index, name, rows.column(name).dictionary_encode())
    return rows


def _values(column: pa.Array, kind: Any) -> NDArray[Any]:
    """Return the numbers of a column, nulls as NaN. `to_numpy` of pyarrow would import pandas for it."""
    if not len(column):
        return np.zeros(0, kind)
    valid, content = column.buffers()
    part = slice(column.offset, column.offset + len(column))
    values = np.frombuffer(content, dtype=kind)[part]
    if not column.null_count:
        return values
    known = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), bitorder="little")[part]
    return np.where(known == 1, values, np.array(np.nan, kind))


def _whole(column: pa.ChunkedArray) -> Any:
    import pyarrow as pa

    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
