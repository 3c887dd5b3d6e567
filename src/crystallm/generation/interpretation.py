"""Interpretation of requests: composition, cells to try, space group. Does not depend on a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crystallm.crystallography import formula as formulas
from crystallm.crystallography import space_groups, wyckoff_assignment
from crystallm.crystallography.formula import Cell
from crystallm.crystallography.space_groups import SpaceGroup
from crystallm.errors import InputError
from crystallm.generation.conditions import RequestedCondition, parse_conditions
from crystallm.generation.request import Request, requested_group
from crystallm.grammar.composition import CompositionConstraint


@dataclass(frozen=True, slots=True)
class InterpretedRequest:
    """A request with its formula and space group parsed.

    Attributes:
        request: as given.
        cell: composition of the cell; None if the network or the choice of Z decides it.
        space_group: None if the network decides it or it is `auto`.
        note: one line for the user: how the request was interpreted.
        cells: candidate cells where z is `auto`, else empty.
        any_group: whether the space group is `auto`.
        wanted: constraint on a composition that the network chooses; None for no constraint.
        conditions: requested values of properties.
    """

    request: Request
    cell: formulas.Cell | None
    space_group: SpaceGroup | None
    note: str
    cells: tuple[formulas.Cell, ...] = ()
    any_group: bool = False
    wanted: CompositionConstraint | None = None
    conditions: tuple[RequestedCondition, ...] = ()


def interpret(request: Request, *, fitting: bool = True, max_atoms: int | None = None) -> InterpretedRequest:
    """Parse the formula and the space group of a request. Does not need a model.

    Args:
        request: to interpret.
        fitting: reject a cell that cannot fill the space group. False is for sampling without constraints;
            elements, or a group without a formula, are then rejected, as they need the grammar.
        max_atoms: atoms of a candidate cell, at most, where Z or the composition is open; None for the
            default.

    Raises:
        InputError: an invalid formula, space group or condition, or options that exclude each other.
    """
    found = _interpret(request, fitting=fitting, max_atoms=max_atoms)
    if not request.conditions:
        return found
    conditions = parse_conditions(request.conditions)
    return replace(found, conditions=conditions, note=", ".join([found.note, *map(str, conditions)]))


def _interpret(request: Request, *, fitting: bool, max_atoms: int | None) -> InterpretedRequest:
    """Parse the formula and the space group of a request."""
    if request.prompt is not None:
        if (request.formula, request.z, request.space_group, request.elements) != (None, None, None, None):
            raise InputError("a prompt stands for the formula, z and the space group: give one or the other")
        if not request.prompt:
            raise InputError("the prompt is empty: leave it out to let the network begin")
        return InterpretedRequest(request, None, None, f"beginning with {request.prompt[:60]!r}")
    if request.formula is None:
        if request.z is not None:
            raise InputError(f"z = {request.z} without a formula: say of what, such as TiO2")
        return _composition_open(request, fitting=fitting, max_atoms=max_atoms)
    if request.elements is not None or request.allow_fewer_elements:
        raise InputError(
            f"elements = {request.elements!r} and the formula {request.formula!r}: give one or the other"
        )

    any_group = request.space_group == "auto"
    group = None if any_group else requested_group(request)
    where = ""
    if any_group:
        where = ", space group = auto"
    elif group is not None:
        where = f", {group.symbol} (no. {group.number})"
    if request.z == "auto":
        most = LARGE_CELL if max_atoms is None else max_atoms
        cells = candidate_cells(request.formula, group, fitting=fitting, max_atoms=most)
        note = f"z = auto, formula unit {cells[0].reduced_formula}{where}"
        return InterpretedRequest(request, None, group, note, cells, any_group)
    cell = formulas.cell(request.formula, request.z)
    if group is not None and fitting:
        require_compatible(cell, group, by_z=request.z is not None)
    return InterpretedRequest(request, cell, group, f"{cell.note}{where}", (), any_group)


def _composition_open(request: Request, *, fitting: bool, max_atoms: int | None) -> InterpretedRequest:
    """Interpret a request without a formula: a chemical system, a space group, both or neither."""
    from crystallm.grammar.composition import MAX_ATOMS, MAX_ELEMENTS, CompositionConstraint

    if request.elements is None and request.allow_fewer_elements:
        raise InputError("allow_fewer_elements without elements: say of which, such as Li-Fe-O")
    if request.space_group == "auto":
        raise InputError(
            "space group 'auto' without a formula: leave it out, the network chooses one for each crystal"
        )
    group = requested_group(request)
    system = None if request.elements is None else formulas.system(request.elements)
    if group is None and system is None:
        return InterpretedRequest(request, None, None, "no formula: the network chooses")
    every = not request.allow_fewer_elements
    if system is not None and every and len(system) > MAX_ELEMENTS:
        raise InputError(
            f"elements = {'-'.join(system)}: {len(system)} elements in one crystal, known ones have up to "
            f"{MAX_ELEMENTS}: name fewer, or let some be left out (allow_fewer_elements)"
        )
    requested = (
        [] if system is None else [f"elements {'-'.join(system)}{'' if every else ' or some of them'}"]
    )
    requested += [] if group is None else [f"{group.symbol} (no. {group.number})"]
    if not fitting:
        raise InputError(
            f"{', '.join(requested)} without a formula takes the rules: leave constraints at full"
        )
    most = MAX_ATOMS if max_atoms is None else min(max_atoms, MAX_ATOMS)
    wanted = CompositionConstraint(system, every, None if group is None else group.number, most)
    return InterpretedRequest(
        request, None, group, f"{', '.join(requested)}: the network chooses the formula", wanted=wanted
    )


MAX_Z = 24
"""Largest Z that is tried, unless the cell stays within SMALL_CELL."""
SMALL_CELL = 96
"""Atoms of a cell up to which Z may exceed MAX_Z: the cell of alpha-Mn has 58 atoms."""
LARGE_CELL = 400
"""Atoms of a candidate cell, at most, unless it holds one formula unit."""


def candidate_cells(
    formula: str, group: SpaceGroup | None, *, fitting: bool, max_atoms: int = LARGE_CELL
) -> tuple[Cell, ...]:
    """Return the cells that are tried for z = "auto", by rising Z.

    Args:
        formula: of the compound; its reduced formula is the unit, or a whole molecule such as Hg2Cl2.
        group: requested space group, or None.
        fitting: leave out cells that cannot fill the group.
        max_atoms: of a cell, where that is less than `LARGE_CELL`.

    Raises:
        InputError: not a formula, or no Z can fill the group.
    """
    unit = formulas.cell(formula, 1)
    most = max(MAX_Z, SMALL_CELL // unit.n_atoms)
    most = max(1, min(most, min(LARGE_CELL, max_atoms) // unit.n_atoms))
    step = formulas.molecule_units(formula)  # a molecule stays whole
    cells = [formulas.cell(formula, z) for z in range(step, max(most, step) + 1, step)]
    if group is not None and fitting:
        cells = [cell for cell in cells if _can_hold(group, cell)]
    if not cells:
        assert group is not None  # noqa: S101 - without one there is Z = 1
        raise InputError(
            f"no {most} or fewer formula units of {unit.reduced_formula} can fill {group.symbol} "
            f"(#{group.number}): choose another space group"
        )
    return tuple(cells)


def require_compatible(cell: Cell, group: SpaceGroup, *, by_z: bool) -> None:
    """Raise an error with alternatives if a cell cannot fill a space group.

    A cell fills a group if orbits of its Wyckoff positions add up to the atoms of each element; a position
    without free coordinates holds one orbit at most.

    Args:
        cell: requested.
        group: requested.
        by_z: whether the cell was given by its Z, not written out.

    Raises:
        InputError: the cell cannot fill the group.
    """
    if _can_hold(group, cell):
        return
    units = f"{cell.z} formula unit{'s' if cell.z > 1 else ''} of {cell.reduced_formula}"
    what = units if by_z else f"a cell of {cell.formula} ({units})"
    raise InputError(f"{what} cannot fill {group.symbol} (#{group.number}); {_alternatives(cell, group)}")


def _alternatives(cell: Cell, group: SpaceGroup) -> str:
    """Return the three nearest Z that fill the group, or else the three nearest groups of its system."""
    most = max(MAX_Z, SMALL_CELL // (cell.n_atoms // cell.z), 2 * cell.z)
    most = min(most, formulas.MAX_ATOMS * cell.z // cell.n_atoms)
    counts = [count // cell.z for _, count in cell.composition]
    fitting = [
        z for z in range(1, most + 1) if wyckoff_assignment.can_hold(group.number, [z * n for n in counts])
    ]
    if fitting:
        nearest = sorted(sorted(fitting, key=lambda z: abs(z - cell.z))[:3])
        return f"Z = {', '.join(map(str, nearest))} can"
    holding = wyckoff_assignment.groups_for(tuple(sorted(count for _, count in cell.composition)))
    alike = [n for n in holding if space_groups.get(n).crystal_system == group.crystal_system]
    nearest = sorted(sorted(alike, key=lambda n: abs(n - group.number))[:3])
    near = ", ".join(f"{space_groups.get(n).symbol} (#{n})" for n in nearest)
    return f"no Z up to {most} can: choose another space group{f', such as {near}' if near else ''}"


def _can_hold(group: SpaceGroup, cell: Cell) -> bool:
    return wyckoff_assignment.can_hold(group.number, [count for _, count in cell.composition])
