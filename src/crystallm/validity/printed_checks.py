"""Checks on the printed text: cell, formulas, multiplicities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.cif.block import ANGLES, LENGTHS, Block, number, row_symbol
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from pymatgen.core import Composition


def cell_faults(block: Block) -> list[str]:
    """Return the printed cell parameters that are out of bounds. Missing ones make a text unreadable."""
    wrong = []
    for names, low, high, unit in ((LENGTHS, 0.5, 1000.0, "Å"), (ANGLES, 10.0, 170.0, "degrees")):
        for name in names:
            if name in block.tags:
                try:
                    value = number(block.tags[name])
                except CrystallmError:
                    continue
                if not low <= value <= high:
                    wrong.append(f"sensible: {name} {value:g} is not in [{low:g}, {high:g}] {unit}")
    return wrong


def parse_composition(formula: str | None, where: str) -> Composition:
    """Return the composition of a printed formula.

    Raises:
        CrystallmError: it is missing, malformed or empty.
    """
    from pymatgen.core import Composition

    if not formula:
        raise CrystallmError(f"the text has no {where}")
    try:
        composition = Composition(formula)
    except Exception:  # noqa: BLE001 - pymatgen raises half a dozen types on malformed formulas
        raise CrystallmError(f"the {where} {formula[:40]!r} is not a formula") from None
    if not composition:
        raise CrystallmError(f"the {where} {formula[:40]!r} is empty")
    return composition


def formula_faults(block: Block) -> list[str]:
    """Return the printed formulas that disagree with each other or with the atoms."""
    printed = {
        "head line": block.name,
        "sum formula": block.tags.get("_chemical_formula_sum"),
        "structural formula": block.tags.get("_chemical_formula_structural"),
    }
    try:
        reduced = {where: parse_composition(value, where).reduced_formula for where, value in printed.items()}
    except CrystallmError as error:
        return [f"formula: {error}"]
    if len(set(reduced.values())) == 1:
        return []
    return ["formula: " + ", ".join(f"{where} {value}" for where, value in reduced.items()) + " differ"]


def multiplicity_faults(block: Block) -> list[str]:
    """Return what is wrong with Z and the multiplicities of atoms."""
    found: dict[str, float] = {}
    try:
        wanted = parse_composition(block.tags.get("_chemical_formula_sum"), "sum formula").get_el_amt_dict()
        for row in block.atoms():
            if "_atom_site_symmetry_multiplicity" not in row:
                return ["multiplicity: the atom rows print none"]
            symbol = row_symbol(row)
            found[symbol] = found.get(symbol, 0) + number(row["_atom_site_symmetry_multiplicity"])
    except CrystallmError as error:
        return [f"multiplicity: {error}"]
    return [
        f"multiplicity: the rows of {symbol} add up to {found.get(symbol, 0):g}, the sum formula "
        f"has {wanted.get(symbol, 0):g}"
        for symbol in sorted(found.keys() | wanted.keys())
        if found.get(symbol, 0) != wanted.get(symbol, 0)
    ]
