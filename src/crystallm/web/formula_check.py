"""How a formula is understood while somebody types it: the cell, possible Z, the groups that can hold it.

Knows what can be asked for; refuses to know models.
"""

from __future__ import annotations

from typing import Any

from crystallm.crystallography import elements, space_groups, wyckoff_assignment
from crystallm.crystallography import formula as formulas
from crystallm.errors import InputError
from crystallm.generation import interpretation
from crystallm.generation.request import Request, with_default_z
from crystallm.visualization import unit_cell

_POSITIONS = 3  # elements that a reason names


class FieldError(InputError):
    """Something was asked wrongly, and one knows where.

    Args:
        field: name of the field.
        message: one line.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def read(formula: str, z: int | str | None, space_group: str | int | None, most_atoms: int) -> dict[str, Any]:
    """What is understood of a formula, Z and space group.

    Args:
        formula: as people write it.
        z: formula units, `auto`, or None for what the formula says, see `asking.opened`.
        space_group: number, symbol in any setting, `auto`, or None.
        most_atoms: of a cell.

    Returns:
        `note`, `formula_unit`, `composition` (of the cell, or of a formula unit where Z is open), `n_atoms`,
        `z_possible` (with the space group, if there is one), `groups` (numbers that can hold the cell),
        `misfits` (why the others cannot), `group`, `z_unsaid` (`auto` or None, the cell as written: what no Z
        means for this formula).

    Raises:
        FieldError: what cannot be understood, and in which field.
    """
    try:
        unit = formulas.cell(formula, 1)
        written = formulas.cell(formula)
    except InputError as error:
        raise FieldError("formula", str(error)) from None
    unsaid = with_default_z(Request(formula=formula)).z
    z = unsaid if z is None else z
    group = None
    if space_group is not None and space_group != "auto":
        try:
            group = space_groups.from_any_setting(str(space_group))
        except InputError as error:
            raise FieldError("space_group", str(error)) from None
    open_cells = _open(formula, unit, most_atoms)
    if z == "auto":
        cells = open_cells
        if not cells:
            raise FieldError("formula", _too_large(unit, most_atoms))
    else:
        try:
            cells = [written if z is None else formulas.cell(formula, _whole(z))]
        except InputError as error:
            raise FieldError("z", str(error)) from None
        if cells[0].n_atoms > most_atoms:
            raise FieldError("formula" if z is None else "z", _too_large(cells[0], most_atoms))
    counts = [[count for _, count in cell.composition] for cell in cells]
    holding = sorted(
        {number for some in counts for number in wyckoff_assignment.groups_for(tuple(sorted(some)))}
    )
    if group is not None and group.number not in holding:
        try:
            interpretation.require_compatible(cells[0], group, by_z=z is not None)
        except InputError as error:
            message = str(error)
        if z == "auto":
            message = (
                f"no {len(cells)} or fewer formula units of {unit.reduced_formula} can fill {group.symbol}"
            )
        raise FieldError("space_group", message)
    shown = cells[0] if z != "auto" else unit
    return {
        "note": shown.note if z != "auto" else f"formula unit {unit.reduced_formula}, Z = auto",
        "formula_unit": unit.reduced_formula,
        "composition": [list(pair) for pair in shown.composition],
        "formula": shown.formula,
        "n_atoms": shown.n_atoms,
        "z": None if z == "auto" else shown.z,
        "z_unsaid": unsaid,
        "z_possible": [
            cell.z
            for cell in open_cells
            if group is None or wyckoff_assignment.can_hold(group.number, [n for _, n in cell.composition])
        ],
        "group": None if group is None else {"number": group.number, "symbol": group.symbol},
        "groups": holding,
        "misfits": {str(n): misfit(n, shown) for n in range(1, 231) if n not in holding},
    }


def misfit(number: int, cell: formulas.Cell) -> str:
    """Why a space group cannot hold a cell, in a few words."""
    free, fixed = wyckoff_assignment.position_counts(number)
    parts = sorted({*free, *(m for m, _ in fixed)})
    alone = [f"{n} {s}" for s, n in cell.composition if not wyckoff_assignment.is_sum(n, tuple(parts))]
    sizes = ", ".join(map(str, parts[:4])) + (", …" if len(parts) > 4 else "")
    if alone:
        return f"its sites hold {sizes} atoms: they do not add up to {' or '.join(alone[:_POSITIONS])}"
    return f"too few special positions for {cell.formula} (sites of {sizes} atoms)"


def about_elements() -> list[dict[str, Any]]:
    """All 118 elements, with whether a text can hold them, and Jmol's colour where it can."""
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


def about_groups() -> list[dict[str, Any]]:
    """The 230 space groups."""
    systems = [(last, name) for last, name, _ in space_groups.SYSTEMS]
    return [
        {"number": n, "symbol": symbol, "system": next(name for last, name in systems if n <= last)}
        for n, symbol in enumerate(space_groups.symbols(), start=1)
    ]


def _open(formula: str, unit: formulas.Cell, most_atoms: int) -> list[formulas.Cell]:
    most = min(interpretation.MAX_Z, most_atoms // unit.n_atoms)
    return [formulas.cell(formula, z) for z in range(1, most + 1)]


def _whole(z: int | str) -> int:
    if isinstance(z, int):
        return z
    if not z.isdecimal() or len(z) > 6:
        raise InputError(f"z = {z[:20]!r}: write a whole number from 1, or auto")
    return int(z)


def _too_large(cell: formulas.Cell, most: int) -> str:
    return f"a cell of {cell.formula} has {cell.n_atoms} atoms: this server takes {most} at most"


def _hex(symbol: str) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in unit_cell.colour(symbol))
