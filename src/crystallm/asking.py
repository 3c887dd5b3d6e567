"""What a person asks for: a request, and how it is read.

Needs no model, and refuses to know what one makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crystallm.crystallography import formula as formulas
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.crystallography.space_groups import SpaceGroup
    from crystallm.grammar.composition import Wanted

Kind = TypeVar("Kind", bound=BaseModel)
MAX_SAMPLES = 1_000_000
"""Crystals of one request, at most."""


class Request(BaseModel):
    """What to write. Frozen; refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True
    )

    formula: str | None = None
    """As people write it; None leaves the composition to the network."""
    z: int | Literal["auto"] | None = None
    """Reduced formula units in the conventional cell; None: the cell is as written, which is seldom what a
    person means who leaves it out, see `opened`; `auto`: samples are spread over the numbers that the network
    finds likely."""
    space_group: str | None = None
    """Symbol or number; None leaves it to the network, sample by sample; `auto`: samples are spread over the
    groups that the network finds likely."""
    n: int = Field(default=10, ge=1, le=MAX_SAMPLES)
    """Crystals."""
    prompt: str | None = None
    """A beginning of a text, in place of formula and space group."""
    elements: str | None = None
    """A chemical system, `Li-Fe-O`, in place of a formula: the network chooses how many atoms of each."""
    elements_subset: bool = False
    """Whether some of these elements may be left out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request understood: what the network will be given.

    Attributes:
        request: as asked.
        cell: what the cell holds, None if that is left to the network or to be chosen.
        space_group: None if that is left to the network or to be chosen.
        note: how the request was read, one line for a person.
        cells: the cells to choose from where z is `auto`, else none.
        any_group: whether the space group is `auto`.
        wanted: what is asked of a composition that the network is to choose; None where nothing is.
    """

    request: Request
    cell: formulas.Cell | None
    space_group: SpaceGroup | None
    note: str
    cells: tuple[formulas.Cell, ...] = ()
    any_group: bool = False
    wanted: Wanted | None = None


def validated(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Build a Request, Settings, or any such model.

    Raises:
        InputError: an unknown key, or a value out of its range; the message names the first.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(str(first["ctx"]["error"] if "ctx" in first else first["msg"])) from None
        name = str(first["loc"][0])  # what follows is which of several types was tried
        if first["type"] == "extra_forbidden":
            raise InputError(f"unknown option {name!r}: there are {', '.join(kind.model_fields)}") from None
        said = first["msg"][:1].lower() + first["msg"][1:]
        raise InputError(f"{name} = {str(first['input'])[:40]!r}: {said}") from None


def opened(request: Request) -> Request:
    """What a person asks for who may have left Z out.

    A formula without Z that is a reduced one (`TiO2`) names a compound, and Z is `auto`; one that is a
    multiple (`Ti2O4`) is the cell as written. Whoever speaks of cells, as a benchmark does, builds the
    request and leaves it as it is.

    Raises:
        InputError: the formula is none.
    """
    if request.formula is None or request.z is not None or formulas.cell(request.formula).z > 1:
        return request
    return request.model_copy(update={"z": "auto"})


def understand(request: Request, *, fitting: bool = True, most_atoms: int | None = None) -> Plan:
    """Read the formula and the space group of a request. Needs no model.

    Args:
        request: to read.
        fitting: refuse a cell that cannot fill the space group. The network alone, without constraints, may
            be asked for anything but what it takes rules for: elements, or a group without a formula.
        most_atoms: of the cells that are tried where Z or the whole cell is to be chosen; None for as many as
            suit.

    Raises:
        InputError: a formula or group that is none, or things that cannot be asked together.
    """
    if request.prompt is not None:
        if (request.formula, request.z, request.space_group, request.elements) != (None, None, None, None):
            raise InputError("a prompt stands for the formula, z and the space group: give one or the other")
        if not request.prompt:
            raise InputError("the prompt is empty: leave it out to let the network begin")
        return Plan(request, None, None, f"beginning with {request.prompt[:60]!r}")
    if request.formula is None:
        if request.z is not None:
            raise InputError(f"z = {request.z} without a formula: say of what, such as TiO2")
        return _composition_open(request, fitting=fitting, most_atoms=most_atoms)
    if request.elements is not None or request.elements_subset:
        raise InputError(
            f"elements = {request.elements!r} and the formula {request.formula!r}: give one or the other"
        )
    from crystallm import choosing

    any_group = request.space_group == "auto"
    group = None if any_group else _group(request)
    where = ""
    if any_group:
        where = ", space group = auto"
    elif group is not None:
        where = f", {group.symbol} (no. {group.number})"
    if request.z == "auto":
        most = choosing.LARGE_CELL if most_atoms is None else most_atoms
        cells = choosing.cells(request.formula, group, fitting=fitting, most_atoms=most)
        note = f"z = auto, formula unit {cells[0].reduced_formula}{where}"
        return Plan(request, None, group, note, cells, any_group)
    cell = formulas.cell(request.formula, request.z)
    if group is not None and fitting:
        choosing.refuse_misfit(cell, group, by_z=request.z is not None)
    return Plan(request, cell, group, f"{cell.note}{where}", (), any_group)


def elements_of(request: Request) -> tuple[str, ...]:
    """Elements that are in each crystal of a request for certain; none where the network may choose them.

    Raises:
        InputError: no formula, or no chemical system.
    """
    if request.formula is not None:
        return tuple(formulas.parse(request.formula))
    if request.elements is None or request.elements_subset:
        return ()
    return formulas.system(request.elements)


def _group(request: Request) -> SpaceGroup | None:
    """The space group that was asked for, if one was."""
    from crystallm.crystallography import space_groups

    if request.space_group is None:
        return None
    if len(request.space_group) > 30:
        raise InputError(
            f"no space group {request.space_group[:30]!r}...: give a number or a symbol such as Fm-3m"
        )
    return space_groups.meant(request.space_group)


def _composition_open(request: Request, *, fitting: bool, most_atoms: int | None) -> Plan:
    """A request without a formula: of a chemical system, in a space group, or of anything."""
    from crystallm.grammar.composition import MAX_ATOMS, MAX_ELEMENTS, Wanted

    if request.elements is None and request.elements_subset:
        raise InputError("elements_subset without elements: say of which, such as Li-Fe-O")
    if request.space_group == "auto":
        raise InputError(
            "space group 'auto' without a formula: leave it out, the network chooses one for each crystal"
        )
    group = _group(request)
    system = None if request.elements is None else formulas.system(request.elements)
    if group is None and system is None:
        return Plan(request, None, None, "no formula: the network chooses")
    every = not request.elements_subset
    if system is not None and every and len(system) > MAX_ELEMENTS:
        raise InputError(
            f"elements = {'-'.join(system)}: {len(system)} elements in one crystal, known ones have up to "
            f"{MAX_ELEMENTS}: name fewer, or let some be left out (elements_subset)"
        )
    asked = [] if system is None else [f"elements {'-'.join(system)}{'' if every else ' or some of them'}"]
    asked += [] if group is None else [f"{group.symbol} (no. {group.number})"]
    if not fitting:
        raise InputError(f"{', '.join(asked)} without a formula takes the rules: leave constraints at full")
    most = MAX_ATOMS if most_atoms is None else min(most_atoms, MAX_ATOMS)
    wanted = Wanted(system, every, None if group is None else group.number, most)
    return Plan(request, None, group, f"{', '.join(asked)}: the network chooses the formula", wanted=wanted)
