"""Items of the data blocks of a CIF, as gemmi reads them: names, values, loops.

Names are in small letters with `_` for a dot, so that those of the older and the newer dictionaries agree.
The values `?` and `.`, without quotes, are missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from math import isinf
from typing import TYPE_CHECKING, Any, TypeVar

from crystallm.errors import TextError, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
X = "_atom_site_fract_x"
CARTESIAN = ("_atom_site_cartn_x", "_atom_site_fract_transf_matrix")
_OF_CRYSTAL = ("_cell_", "_symmetry_", "_space_group_", "_atom_site_", "_chemical_formula_sum")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
"""Typographic hyphens, dashes and the minus sign."""
_BARRED = re.compile("([1-6])[\u0304\u0305]")
"""A rotoinversion as it is printed, with a bar above."""
_NUMBER = re.compile(r"([+-]?(?:\d+\.?(\d*)|\.(\d+))(?:[eEdD]([+-]?\d{1,3}))?)(?:\((\d*)\))?", re.ASCII)


@dataclass(slots=True)
class Items:
    """One data block.

    Attributes:
        name: of the block.
        values: of each single item, as it stands.
        columns: of each item in a loop, its values as they stand.
    """

    name: str
    values: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Sequence[str]] = field(default_factory=dict)

    def first(self, names: Sequence[str]) -> str | None:
        """Return the value of the first of these items that has one, in a loop of one row too."""
        for name in names:
            column = self.column((name,)) or ()
            value = column[0] if len(column) == 1 else None
            if value is not None and value.strip():
                return " ".join(value.split())
        return None

    def column(self, names: Sequence[str]) -> list[str | None] | None:
        """Return the values of the first of these items that is there, a single value as well."""
        for name in names:
            if name in self.columns:
                return [_value(value) for value in self.columns[name]]
            if name in self.values:
                return [_value(self.values[name])]
        return None


def crystal(text: str) -> Items:
    """Return the one data block of a text that holds atoms.

    Raises:
        TextError: it is not a CIF, or no block or several hold atoms.
    """
    blocks = read(text)
    found = [block for block in blocks if block.column((X,)) is not None]
    if len(found) > 1:
        names = " and ".join(repr(block.name[:20]) for block in found[:2])
        raise TextError(f"{len(found)} crystals are in one text ({names}): give one at a time")
    if found:
        return found[0]
    if not blocks:
        raise TextError("it is not a CIF: no data block begins with data_")
    if any(name in block.columns or name in block.values for block in blocks for name in CARTESIAN):
        raise TextError("its atoms have Cartesian coordinates alone, and fractional ones are read")
    if any("_cell_length_a" in block.values for block in blocks):
        raise TextError("it has a cell and no atoms with fractional coordinates")
    raise TextError("it has neither a cell nor atoms")


def read(text: str) -> list[Items]:
    """Return the data blocks of a CIF.

    Raises:
        TextError: it is not one; names the line.
    """
    from gemmi import cif

    if not text.strip():
        raise TextError("it is empty")
    # gemmi ends a line at \\n alone, and knows ASCII.
    plain = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    if not plain.isascii():
        plain = _BARRED.sub(r"-\1", plain.translate(_DASHES)).encode("ascii", "replace").decode()
    try:
        document = cif.read_string(plain, 0)
    except (ValueError, RuntimeError) as error:
        raise TextError(_problem(one_line(error, 120))) from None
    return [_items(block) for block in document]


def _problem(why: str) -> str:
    match = re.match(r"string:(\d+)(?::\d+\(\d+\))?:?\s*(.*)", why)
    if match is None:
        return f"it is not a CIF: {why}"
    line, reason = match[1], re.sub(r"^in \S*: ", "", match[2])
    if "block header" in reason:
        return "it is not a CIF: no data block begins with data_"
    if "loop" in reason and "number of values" in reason:
        reason = "the values of a loop do not fill its rows"
    return f"it is not a CIF at line {line}: {reason}"


def _items(block: Any) -> Items:
    found = Items(block.name)
    for item in block:
        if item.pair is not None:
            name, value = item.pair
            _put(found.values, name, value)
        elif item.loop is not None:
            tags, values = item.loop.tags, item.loop.values
            for i, tag in enumerate(tags):
                _put(found.columns, tag, values[i :: len(tags)])
    return found


def _put(into: dict[str, T], tag: str, value: T) -> None:
    """Add an item under its name in small letters.

    Raises:
        TextError: it describes the crystal, and is there already with another value.
    """
    name = tag.lower().replace(".", "_")
    if into.setdefault(name, value) != value and name.startswith(_OF_CRYSTAL):
        raise TextError(f"{tag} is there twice, with different values")


def _value(value: str) -> str | None:
    """Return a value without its quotes; None for one that is missing."""
    if value[:1] in ("'", '"', ";"):
        from gemmi import cif

        value = cif.as_string(value).strip()
    return None if value in ("?", ".", "") else value


def number(value: str | None, name: str) -> tuple[float, float]:
    """Return a number and the unit of its last digit, or its uncertainty if that is larger.

    Args:
        value: such as `0.3333` or `5.64(2)`.
        name: of what it is, for the error.

    Raises:
        TextError: it is missing, or anything else than one number.
    """
    if value is None:
        raise TextError(f"{name} is missing: '?' or '.'")
    found = parse_number(value)
    if found is None:
        raise TextError(f"{name} is {value[:20]!r}, which is not a number")
    return found


@lru_cache(maxsize=1024)
def parse_number(text: str) -> tuple[float, float] | None:
    """Return a number and its unit as `number`; None for anything else."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    plain, digits, more_digits, exponent, uncertainty = match.groups()
    value = float(plain.lower().replace("d", "e"))
    if isinf(value):
        return None
    unit = 10.0 ** (int(exponent or 0) - len(digits or more_digits or ""))
    return value, unit * max(1, int(uncertainty or 1))
