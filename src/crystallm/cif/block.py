"""CIF data items by name, and a data block as it stands: items, loops and rows.

The lenient reader: it accepts any text and leaves checks to its callers, such as the validity of broken
texts. `cif.parser` is the strict reader of standard texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from crystallm.crystallography import elements
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
CELL = LENGTHS + ANGLES
VOLUME, Z = "_cell_volume", "_cell_formula_units_Z"
GROUP, NUMBER = "_symmetry_space_group_name_H-M", "_symmetry_Int_Tables_number"
GROUP_NAMES = (GROUP, "_space_group_name_H-M_alt")
"""Items with the symbol of the space group: the first is that of standard texts, and so below."""
STRUCTURAL, SUM = "_chemical_formula_structural", "_chemical_formula_sum"
PROPERTY_LOOP = (
    "_atom_type_symbol",
    "_atom_type_electronegativity",
    "_atom_type_radius",
    "_atom_type_ionic_radius",
)
OPERATOR_LOOP = ("_symmetry_equiv_pos_site_id", "_symmetry_equiv_pos_as_xyz")
OPERATOR_NAMES = (OPERATOR_LOOP[1], "_space_group_symop_operation_xyz")
"""Columns with symmetry operators."""
SYMBOL, LABEL = "_atom_site_type_symbol", "_atom_site_label"
MULTIPLICITY, OCCUPANCY = "_atom_site_symmetry_multiplicity", "_atom_site_occupancy"
POSITION = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
ATOM_LOOP = (SYMBOL, LABEL, MULTIPLICITY, *POSITION, OCCUPANCY)
_TOKEN = re.compile(r"""'(.*?)'(?!\S)|"(.*?)"(?!\S)|([^\s'"]\S*|['"]\S*)""")


@dataclass(slots=True)
class Block:
    """The first data block of a CIF as it stands, unchecked."""

    name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    loops: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """Column names and all their values, row after row."""

    def first(self, names: Sequence[str]) -> str | None:
        """Return the value of the first of these tags that is present."""
        return next((self.tags[name] for name in names if name in self.tags), None)

    def rows(self, column: str) -> list[dict[str, str]]:
        """Return the rows of the loop with this column; none if no loop has it.

        Raises:
            CrystallmError: its values do not fill its rows.
        """
        for columns, values in self.loops:
            if column in columns:
                if len(values) % len(columns):
                    raise CrystallmError(
                        f"{len(values)} values do not fill rows of {len(columns)} in the loop of {column}"
                    )
                width = len(columns)
                return [
                    dict(zip(columns, values[i : i + width], strict=True))
                    for i in range(0, len(values), width)
                ]
        return []

    def operators(self) -> tuple[str, list[dict[str, str]]] | None:
        """Return the column with the symmetry operators and the rows of its loop; None if there is none.

        Raises:
            CrystallmError: its values do not fill its rows.
        """
        name = next(
            (name for name in OPERATOR_NAMES if any(name in columns for columns, _ in self.loops)), None
        )
        return None if name is None else (name, self.rows(name))

    def atoms(self) -> list[dict[str, str]]:
        """Return the rows of the atom loop.

        Raises:
            CrystallmError: there are none, or their values do not fill them.
        """
        rows = self.rows(POSITION[0])
        if not rows:
            raise CrystallmError("the text has no atom rows")
        return rows


def read(text: str) -> Block:
    """Read tags and loops of the first data block; skip values without a tag or loop."""
    block = Block()
    columns: list[str] = []  # of the current loop
    values: list[str] | None = None
    tag: str | None = None  # without a value so far
    field = False  # of text, in which anything may stand
    for line in text.splitlines():
        if line.startswith(";"):
            field = not field
            found = [] if field else [("", "", "text")]
        elif field:
            continue
        elif line.lstrip()[:5].lower() == "data_" and block.name is not None:
            return block
        else:
            found = _TOKEN.findall(line)
        for quoted, double, plain in found:
            if plain.startswith("#"):
                break
            if plain[:5].lower() == "data_" and not values:
                block.name = plain[5:]
            elif plain == "loop_":
                columns, values, tag = [], [], None
                block.loops.append((columns, values))
            elif plain.startswith("_"):
                if values is not None and not values:
                    columns.append(plain)
                else:
                    values, tag = None, plain
            elif tag is not None:
                block.tags.setdefault(tag, quoted or double or plain)
                tag = None
            elif values is not None and columns:
                values.append(quoted or double or plain)
    return block


def number(value: str) -> float:
    """Return a CIF number without its uncertainty in parentheses.

    Raises:
        CrystallmError: it is not a number, or not finite.
    """
    try:
        number = float(value.split("(", maxsplit=1)[0])
    except ValueError:
        raise CrystallmError(f"{value[:20]!r} is not a number") from None
    if not isfinite(number):
        raise CrystallmError(f"{value[:20]!r} is not a finite number")
    return number


def symbol_of(value: str) -> str:
    """Return the element of an atom row: `Na` for `Na`, `Na1+` or `Na0`.

    Raises:
        CrystallmError: it is not an element.
    """
    match = re.match(r"[A-Z][a-z]?", value)
    if match is None or match[0] not in elements.SYMBOLS_BY_NUMBER:
        raise CrystallmError(f"{value[:20]!r} is not an element")
    return match[0]


def row_symbol(row: Mapping[str, str]) -> str:
    """Return the element of an atom row, by its type or else its label.

    Raises:
        CrystallmError: it is not an element.
    """
    return symbol_of(row.get(SYMBOL) or row.get(LABEL, ""))
