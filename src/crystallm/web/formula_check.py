"""Interpretation of a formula while it is typed: the cell, possible Z, space groups that can hold it.

Does not depend on models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crystallm.crystallography import elements, space_groups, wyckoff_assignment
from crystallm.crystallography import formula as formulas
from crystallm.crystallography.space_groups import SpaceGroup
from crystallm.errors import InputError
from crystallm.generation import interpretation
from crystallm.generation.request import Request, with_default_z
from crystallm.visualization import unit_cell

_MAX_ELEMENTS = 3  # that a reason names


class FieldError(InputError):
    """A field of a request is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def read(formula: str, z: int | str | None, space_group: str | int | None, max_atoms: int) -> dict[str, Any]:
    """Interpret a formula, Z and space group.

    Args:
        z: formula units, `auto`, or None for the default of the formula, see `with_default_z`.
        space_group: number, symbol in any setting, `auto`, or None.

    Returns:
        `note`, `formula_unit`, `composition` (of the cell, or of a formula unit where Z is open), `n_atoms`,
        `z_possible` (for the space group, if there is one), `groups` (numbers that can hold the cell),
        `misfits` (why the others cannot), `group`, `default_z` (`auto`, or None for the cell as written: what
        no Z means for this formula).

    Raises:
        FieldError: a field cannot be interpreted.
    """
    try:
        unit = formulas.cell(formula, 1)
        written = formulas.cell(formula)
    except InputError as error:
        raise FieldError("formula", str(error)) from None
    default_z = with_default_z(Request(formula=formula)).z
    z = default_z if z is None else z
    group = _group(space_group)
    open_cells = _open_cells(formula, unit, max_atoms)
    cells = open_cells if z == "auto" else _fixed_cells(formula, written, z, max_atoms)
    if not cells:
        raise FieldError("formula", _too_large(unit, max_atoms))
    counts = {tuple(sorted(count for _, count in cell.composition)) for cell in cells}
    groups = sorted({number for some in counts for number in wyckoff_assignment.groups_for(some)})
    if group is not None and group.number not in groups:
        raise FieldError("space_group", _group_misfit(cells, group, unit, z))
    shown = unit if z == "auto" else cells[0]
    return {
        "note": shown.note if z != "auto" else f"formula unit {unit.reduced_formula}, Z = auto",
        "formula_unit": unit.reduced_formula,
        "composition": [list(pair) for pair in shown.composition],
        "formula": shown.formula,
        "n_atoms": shown.n_atoms,
        "z": None if z == "auto" else shown.z,
        "default_z": default_z,
        "z_possible": [
            cell.z
            for cell in open_cells
            if group is None or wyckoff_assignment.can_hold(group.number, [n for _, n in cell.composition])
        ],
        "group": None if group is None else {"number": group.number, "symbol": group.symbol},
        "groups": groups,
        "misfits": {str(n): misfit(n, shown) for n in range(1, 231) if n not in groups},
    }


def misfit(number: int, cell: formulas.Cell) -> str:
    """Return in a few words why a space group cannot hold a cell."""
    free, fixed = wyckoff_assignment.position_counts(number)
    parts = sorted({*free, *(m for m, _ in fixed)})
    alone = [f"{n} {s}" for s, n in cell.composition if not wyckoff_assignment.is_sum(n, tuple(parts))]
    sizes = ", ".join(map(str, parts[:4])) + (", …" if len(parts) > 4 else "")
    if alone:
        return f"its sites hold {sizes} atoms: they do not add up to {' or '.join(alone[:_MAX_ELEMENTS])}"
    return f"too few special positions for {cell.formula} (sites of {sizes} atoms)"


def element_facts() -> list[dict[str, Any]]:
    """Return the 118 elements: whether each has a token, and its colour (Jmol) and atomic radius, Å."""
    known = set(elements.symbols())
    return [
        {
            "symbol": symbol,
            "number": number,
            "known": symbol in known,
            "colour": _hex(symbol) if symbol in known else None,
            "radius": elements.get(symbol).atomic_radius if symbol in known else None,
        }
        for number, symbol in enumerate(elements.SYMBOLS_BY_NUMBER, start=1)
    ]


def space_group_facts() -> list[dict[str, Any]]:
    """Return number, symbol and crystal system of the 230 space groups."""
    systems = [(last, name) for last, name, _ in space_groups.SYSTEMS]
    return [
        {"number": n, "symbol": symbol, "system": next(name for last, name in systems if n <= last)}
        for n, symbol in enumerate(space_groups.symbols(), start=1)
    ]


def _group(space_group: str | int | None) -> SpaceGroup | None:
    if space_group is None or space_group == "auto":
        return None
    try:
        return space_groups.from_any_setting(str(space_group))
    except InputError as error:
        raise FieldError("space_group", str(error)) from None


def _open_cells(formula: str, unit: formulas.Cell, max_atoms: int) -> list[formulas.Cell]:
    """Return the cells of all Z that the limit allows."""
    max_z = min(interpretation.MAX_Z, max_atoms // unit.n_atoms)
    step = formulas.molecule_units(formula)  # a molecule stays whole
    return [formulas.cell(formula, z) for z in range(step, max_z + 1, step)]


def _fixed_cells(
    formula: str, written: formulas.Cell, z: int | str | None, max_atoms: int
) -> list[formulas.Cell]:
    """Return the one cell of a given Z; None: the cell as written."""
    try:
        cell = written if z is None else formulas.cell(formula, _as_integer(z))
    except InputError as error:
        raise FieldError("z", str(error)) from None
    if cell.n_atoms > max_atoms:
        raise FieldError("formula" if z is None else "z", _too_large(cell, max_atoms))
    return [cell]


def _group_misfit(
    cells: Sequence[formulas.Cell], group: SpaceGroup, unit: formulas.Cell, z: int | str | None
) -> str:
    """Return why a group holds none of the cells."""
    if z == "auto":
        return f"no {len(cells)} or fewer formula units of {unit.reduced_formula} can fill {group.symbol}"
    try:
        interpretation.require_compatible(cells[0], group, by_z=z is not None)
    except InputError as error:
        return str(error)
    raise AssertionError(f"{cells[0].formula} fits {group.symbol}")


def _as_integer(z: int | str) -> int:
    if isinstance(z, int):
        return z
    if not z.isdecimal() or len(z) > 6:
        raise InputError(f"z = {z[:20]!r}: write a whole number from 1, or auto")
    return int(z)


def _too_large(cell: formulas.Cell, max_atoms: int) -> str:
    return f"a cell of {cell.formula} has {cell.n_atoms} atoms: this server allows at most {max_atoms}"


def _hex(symbol: str) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in unit_cell.colour(symbol))
