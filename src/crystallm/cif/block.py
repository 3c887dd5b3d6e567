"""Tags and loops of a CIF as they stand, whatever they say: for judges, who may not stop at a broken text.

`cif_reader` is the reader that knows what a text has to be. This one refuses nothing but what is asked of it.
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


LENGTHS = tuple(f"_cell_length_{x}" for x in "abc")

ANGLES = tuple(f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma"))

POSITION = tuple(f"_atom_site_fract_{x}" for x in "xyz")

_TOKEN = re.compile(r"""'(.*?)'(?!\S)|"(.*?)"(?!\S)|([^\s'"]\S*|['"]\S*)""")


@dataclass(slots=True)
class Block:
    """The first data block of a CIF, as it stands: nothing is asked of it yet."""

    name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    loops: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """Column names and all their values, row after row."""

    def first(self, names: Sequence[str]) -> str | None:
        """The value of the first of these tags that there is."""
        return next((self.tags[name] for name in names if name in self.tags), None)

    def rows(self, column: str) -> list[dict[str, str]]:
        """The rows of the loop that holds this column; none where there is no such loop.

        Raises:
            CrystallmError: its values don't fill its rows.
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

    def atoms(self) -> list[dict[str, str]]:
        """The rows of the atom loop.

        Raises:
            CrystallmError: there are none, or broken ones.
        """
        rows = self.rows(POSITION[0])
        if not rows:
            raise CrystallmError("the text has no atom rows")
        return rows


def read(text: str) -> Block:
    """Tags and loops of the first data block; values that stand nowhere are passed over."""
    block = Block()
    columns: list[str] = []  # of the loop that is being read
    values: list[str] | None = None
    tag: str | None = None  # that waits for its value
    for line in text.splitlines():
        for quoted, double, plain in _TOKEN.findall("" if line.startswith(("#", ";")) else line):
            if plain.startswith("#"):
                break
            if plain.startswith("data_") and not values:
                if block.name is not None:
                    return block
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
    """A CIF number, its uncertainty in parentheses left out.

    Raises:
        CrystallmError: it is none, or not finite.
    """
    try:
        number = float(value.split("(", maxsplit=1)[0])
    except ValueError:
        raise CrystallmError(f"{value[:20]!r} is not a number") from None
    if not isfinite(number):
        raise CrystallmError(f"{value[:20]!r} is not a finite number")
    return number


def symbol_of(value: str) -> str:
    """The element of an atom row: `Na` of `Na`, `Na1+` or `Na0`.

    Raises:
        CrystallmError: it is none.
    """
    match = re.match(r"[A-Z][a-z]?", value)
    if match is None or match[0] not in elements.SYMBOLS_BY_NUMBER:
        raise CrystallmError(f"{value[:20]!r} is not an element")
    return match[0]


def row_symbol(row: Mapping[str, str]) -> str:
    """The element of an atom row, by its type or else its label.

    Raises:
        CrystallmError: it is none.
    """
    return symbol_of(row.get("_atom_site_type_symbol") or row.get("_atom_site_label", ""))


CELL = (
    "_cell_length_a",
    "_cell_length_b",
    "_cell_length_c",
    "_cell_angle_alpha",
    "_cell_angle_beta",
    "_cell_angle_gamma",
)

GROUP, NUMBER = "_symmetry_space_group_name_H-M", "_symmetry_Int_Tables_number"

STRUCTURAL, SUM = "_chemical_formula_structural", "_chemical_formula_sum"

VOLUME, Z = "_cell_volume", "_cell_formula_units_Z"

PROPERTY_LOOP = (
    "_atom_type_symbol",
    "_atom_type_electronegativity",
    "_atom_type_radius",
    "_atom_type_ionic_radius",
)

OPERATOR_LOOP = ("_symmetry_equiv_pos_site_id", "_symmetry_equiv_pos_as_xyz")

SYMBOL, LABEL = "_atom_site_type_symbol", "_atom_site_label"

MULTIPLICITY, OCCUPANCY = "_atom_site_symmetry_multiplicity", "_atom_site_occupancy"

POSITION = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")

ATOM_LOOP = (SYMBOL, LABEL, MULTIPLICITY, *POSITION, OCCUPANCY)
