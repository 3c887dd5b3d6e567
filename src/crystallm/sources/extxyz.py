"""Read a frame of extended XYZ: number of atoms, a comment of pairs (cell, columns), a line per atom."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crystallm.crystallography.element_names import element
from crystallm.errors import TextError
from crystallm.sources import building

if TYPE_CHECKING:
    from pymatgen.core import Structure

PAIR = re.compile(
    r"""(?<!\S)(lattice|cell|properties|pbc)\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^=]*\](?=\s|$)|[^\s"'{[]\S*)""",
    re.IGNORECASE,
)
"""Pairs of a comment that are read."""
COLUMNS = re.compile(r"\w{1,50}:[SRIL]:\d{1,2}(:\w{1,50}:[SRIL]:\d{1,2}){0,50}")
DEFAULT_COLUMNS = "species:S:1:pos:R:3"
_TRUE = {"T", "1", "TRUE"}


def read(text: str) -> Structure:
    """Return the structure of a frame.

    Raises:
        TextError: it has no cell, is not periodic, or its columns are not those of atoms.
    """
    number, comment, rows = (*text.split("\n", 2), "", "")[:3]
    pairs = {name.lower(): value.strip("\"'") for name, value in PAIR.findall(comment) if len(value) < 2000}
    numbers = re.sub(r"[\[\](){},]", " ", pairs.get("lattice") or pairs.get("cell", "")).split()
    if not numbers:
        raise TextError("no cell: its second line has no Lattice=")
    try:
        cell = [float(x) for x in numbers]
        n_atoms = int(number)
    except ValueError:
        raise TextError("its cell or its number of atoms is not made of numbers") from None
    if len(cell) != 9:
        raise TextError(f"no cell: it has {len(cell)} numbers in place of 9")
    if "pbc" in pairs:
        flags = re.sub(r"[\[\](){},]", " ", pairs["pbc"]).upper().split()
        building.periodic([flag in _TRUE for flag in (flags * 3 if len(flags) == 1 else flags)])
    first, n_columns = _first_columns(pairs.get("properties", DEFAULT_COLUMNS))
    lines = [line.split() for line in rows.splitlines() if line.strip()]
    if len(lines) != n_atoms:
        raise TextError(f"{len(lines)} lines for {n_atoms} atoms")
    species, positions = first["species"], first["pos"]
    if any(len(words) < n_columns for words in lines):
        raise TextError("a line of an atom has fewer columns than Properties= names")
    try:
        coords = [[float(x) for x in words[positions : positions + 3]] for words in lines]
    except ValueError:
        raise TextError("a position is not of three numbers") from None
    return building.build(
        building.cell([cell[:3], cell[3:6], cell[6:]]),
        [{element(words[species]): 1.0} for words in lines],
        coords,
        cartesian=True,
    )


def _first_columns(properties: str) -> tuple[dict[str, int], int]:
    """Return the first column of the symbols and of the positions, and the number of columns."""
    if not COLUMNS.fullmatch(properties):
        raise TextError(f"{properties[:40]!r} tells no columns of atoms")
    words, first, column = properties.split(":"), dict[str, int](), 0
    for name, kind, width in zip(words[::3], words[1::3], words[2::3], strict=True):
        if (name.lower(), kind, width) in (("species", "S", "1"), ("element", "S", "1"), ("pos", "R", "3")):
            first.setdefault("pos" if name.lower() == "pos" else "species", column)
        column += int(width)
    if len(first) < 2:
        raise TextError(f"{properties[:40]!r} names no columns species:S:1 and pos:R:3")
    return first, column
