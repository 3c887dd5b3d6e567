"""Strict parser of standard texts, with line numbers in its errors.

A standard text is a small CIF: a head line with the composition, tags with values, loops. Any string gives a
result or one error that names the line. The parser builds no structure and checks no chemistry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from crystallm.cif.block import (
    CELL,
    GROUP,
    LABEL,
    MULTIPLICITY,
    NUMBER,
    OCCUPANCY,
    OPERATOR_LOOP,
    POSITION,
    STRUCTURAL,
    SUM,
    SYMBOL,
    VOLUME,
    Z,
)
from crystallm.crystallography import elements
from crystallm.crystallography.cells import impossible
from crystallm.errors import InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystallm.crystallography.space_groups import SpaceGroup

MAX_CHARACTERS = 200_000
"""Longer texts are rejected. The longest published one has some 5,000 characters."""
MAX_ATOMS = 5_000
"""Most atoms of a conventional cell."""

_ION = re.compile(r"([A-Z][a-z]?)([0-9]{0,6})")
_WHOLE = re.compile(r"[0-9]{1,6}")
_NUMERAL = re.compile(r"[-+]?(?:[0-9]{1,6}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_VALUE = re.compile(r"'([^']*)'(?!\S)|\"([^\"]*)\"(?!\S)|([^\s'\"]\S*)")


class Row(NamedTuple):
    """One row of the atom loop: an orbit by one of its atoms, in fractions of the cell."""

    symbol: str
    label: str
    multiplicity: int
    x: float
    y: float
    z: float
    occupancy: float
    line: int
    """Line number in the text, from 1."""


@dataclass(frozen=True, slots=True)
class ParsedText:
    """The content of a standard text, as printed.

    Attributes:
        composition: (symbol, count) of the head line.
        space_group: Hermann-Mauguin symbol, one of the 230.
        space_group_number: number of that symbol.
        cell: a, b, c (Å), alpha, beta, gamma (degrees).
        rows: of the atom loop.
        printed_number: of the space group; here and below None where the text omits it.
        formula_sum: (symbol, count) of the sum formula.
        formula_structural: `Ca(AlO2)2`.
        z: formula units in the cell.
        volume: Å^3.
    """

    composition: tuple[tuple[str, int], ...]
    space_group: str
    space_group_number: int
    cell: tuple[float, float, float, float, float, float]
    rows: tuple[Row, ...]
    printed_number: int | None
    formula_sum: tuple[tuple[str, int], ...] | None
    formula_structural: str | None
    z: int | None
    volume: float | None


def parse(text: str) -> ParsedText:
    """Parse a standard text, whatever the order of its lines.

    Skips blank lines, comments and unknown tags. The symmetry loop may also hold the operators that `to_cif`
    writes, so that its CIFs are read too.

    Raises:
        TextError: not a standard text; gives the reason and the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise TextError(f"a text of {len(text)} characters: at most {MAX_CHARACTERS} are read")
    lines = _lines(text)
    number, first = next(lines, (1, ""))
    if not first.startswith("data_"):
        raise TextError(
            f"begins with {first[:40]!r}: a crystal begins with its composition, data_Na4Cl4", number
        )
    composition = _composition(first[5:], number)
    values: dict[str, tuple[int, str]] = {}
    loops: dict[str, _Loop] = {}
    loop: _Loop | None = None
    for number, line in lines:
        if line == "loop_":
            loop = _Loop(number, [], [])
        elif line.startswith(("data_", "loop_")):
            raise TextError(f"{line[:40]!r}: a text holds one crystal, and loop_ stands alone", number)
        elif line.startswith("_"):
            tag, _, rest = line.partition(" ")
            value = rest.strip()
            if tag in values or tag in loops:
                raise TextError(f"{tag} occurs twice", number)
            if loop is not None and not loop.rows and not value:
                loop.tags.append(tag)
                loops[tag] = loop
            elif value:
                loop = None
                values[tag] = (number, _unquoted(value, number))
            else:
                raise TextError(f"{tag} has no value", number)
        elif loop is None or not loop.tags:
            raise TextError(f"{line[:40]!r} is neither a tag with its value nor the row of a loop", number)
        else:
            loop.rows.append((number, _cells(line, len(loop.tags), number)))
    group = _group(values)
    _check_operators(loops, group)
    return ParsedText(
        composition=composition,
        space_group=group.symbol,
        space_group_number=group.number,
        cell=_cell(values),
        rows=_rows(loops),
        printed_number=_optional_whole(values, NUMBER),
        formula_sum=_composition(values[SUM][1], values[SUM][0]) if SUM in values else None,
        formula_structural=values[STRUCTURAL][1] if STRUCTURAL in values else None,
        z=_optional_whole(values, Z),
        volume=_number(values[VOLUME][1], VOLUME, values[VOLUME][0]) if VOLUME in values else None,
    )


class _Loop(NamedTuple):
    line: int
    tags: list[str]
    rows: list[tuple[int, list[str]]]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with content and their numbers from 1; runs of blanks are one blank."""
    for number, line in enumerate(text.split("\n"), 1):
        short = " ".join(line.split())
        if short and not short.startswith("#"):
            yield number, short


def _composition(text: str, line: int) -> tuple[tuple[str, int], ...]:
    """Return (symbol, count) of `Na4Cl4` or `Na4 Cl4`."""
    counts: dict[str, int] = {}
    position = 0
    plain = text.replace(" ", "")
    while position < len(plain):
        match = _ION.match(plain, position)
        if match is None:
            raise TextError(f"{text[:40]!r} is not a composition: write Na4Cl4", line)
        count = int(match[2] or 1)
        symbol = _element(match[1], line)
        if not 0 < count <= MAX_ATOMS:
            raise TextError(f"{text[:40]!r}: {count} atoms of {symbol}: a cell holds 1 to {MAX_ATOMS}", line)
        counts[symbol] = counts.get(symbol, 0) + count
        position = match.end()
    if not counts:
        raise TextError("a composition without an element: write Na4Cl4", line)
    return tuple(counts.items())


def _element(symbol: str, line: int) -> str:
    try:
        return elements.get(symbol).symbol
    except InputError as error:
        raise TextError(str(error), line) from None


def _unquoted(value: str, line: int) -> str:
    return _cells(value, 1, line)[0]


def _cells(line: str, width: int, number: int) -> list[str]:
    """Return the values of a row; those in quotation marks may hold blanks."""
    values = [match[1] or match[2] or match[3] or "" for match in _VALUE.finditer(line)]
    left = _VALUE.sub("", line).strip()
    if left or len(values) != width:
        raise TextError(
            f"{line[:60]!r}: {len(values)} values where {width} belong, or a stray quotation mark", number
        )
    return values


def _group(values: dict[str, tuple[int, str]]) -> SpaceGroup:
    from crystallm.crystallography import space_groups

    if GROUP not in values:
        raise TextError(f"{GROUP} is missing")
    line, symbol = values[GROUP]
    number = _group_numbers().get(symbol)
    if number is None:
        raise TextError(f"no space group {symbol[:20]!r}: texts print symbols such as P4_2/mnm", line)
    return space_groups.get(number)


@cache
def _group_numbers() -> dict[str, int]:
    from crystallm.crystallography import space_groups

    return {symbol: number for number, symbol in enumerate(space_groups.symbols(), 1)}


def _cell(values: dict[str, tuple[int, str]]) -> tuple[float, float, float, float, float, float]:
    for tag in CELL:
        if tag not in values:
            raise TextError(f"{tag} is missing")
    a, b, c, alpha, beta, gamma = (_number(values[tag][1], tag, values[tag][0]) for tag in CELL)
    cell = (a, b, c, alpha, beta, gamma)
    if impossible(cell):
        raise TextError(f"no cell has these lengths and angles: {cell}", values[CELL[0]][0])
    return cell


def _number(value: str, tag: str, line: int) -> float:
    if not _NUMERAL.fullmatch(value):
        raise TextError(f"{tag} {value[:20]!r} is not a number", line)
    return float(value)


def _whole(value: str, tag: str, line: int) -> int:
    if not _WHOLE.fullmatch(value):
        raise TextError(f"{tag} {value[:20]!r} is not a whole number", line)
    return int(value)


def _optional_whole(values: dict[str, tuple[int, str]], tag: str) -> int | None:
    return _whole(values[tag][1], tag, values[tag][0]) if tag in values else None


def _rows(loops: dict[str, _Loop]) -> tuple[Row, ...]:
    loop = loops.get(SYMBOL)
    if loop is None:
        raise TextError(f"the loop of atoms, with {SYMBOL}, is missing")
    column = {tag: i for i, tag in enumerate(loop.tags)}
    for tag in (MULTIPLICITY, *POSITION):
        if tag not in column:
            raise TextError(f"the loop of atoms lacks {tag}", loop.line)
    if not loop.rows:
        raise TextError("the loop of atoms has no row", loop.line)
    rows = []
    for line, cells in loop.rows:
        symbol = _element(cells[column[SYMBOL]], line)
        multiplicity = _whole(cells[column[MULTIPLICITY]], MULTIPLICITY, line)
        x, y, z = (_number(cells[column[tag]], tag, line) for tag in POSITION)
        label = cells[column[LABEL]] if LABEL in column else symbol
        occupancy = _number(cells[column[OCCUPANCY]], OCCUPANCY, line) if OCCUPANCY in column else 1.0
        rows.append(Row(symbol, label, multiplicity, x, y, z, occupancy, line))
    return tuple(rows)


def _check_operators(loops: dict[str, _Loop], group: SpaceGroup) -> None:
    loop = loops.get(OPERATOR_LOOP[1])
    if loop is None:
        return
    column = loop.tags.index(OPERATOR_LOOP[1])
    printed = [cells[column].replace(" ", "") for _, cells in loop.rows]
    if printed not in (["x,y,z"], [operator.replace(" ", "") for operator in group.xyz_operators]):
        raise TextError(
            f"{len(printed)} symmetry operators: a text holds the identity alone, or all of {group.symbol} "
            f"(#{group.number}) in the setting of the texts",
            loop.line,
        )
