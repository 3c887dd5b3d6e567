"""Rows of atoms of a CIF: elements, fractions, occupancies; dummies and empty sites are left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from crystallm.cif.items import Items, number, parse_number
from crystallm.crystallography import element_names
from crystallm.errors import TextError

SITE = "_atom_site_"
FULL = 1e-3
"""Largest difference of an occupancy from 1 at a full site."""
MIN_UNIT, MAX_UNIT = 1e-4, 1e-2
"""Bounds of the last digit of a coordinate, fractions."""
_COMMON = frozenset({"0", "-0", "1", "", "-"})
"""What stands before the point of most coordinates."""


@dataclass(slots=True)
class Site:
    """One row of atoms.

    Attributes:
        label: for messages.
        symbol: of the element.
        point: [3] fractions.
        units: [3] the last digit of each.
        occupancy: up to 1.
    """

    label: str
    symbol: str
    point: list[float]
    units: list[float]
    occupancy: float


def read_sites(block: Items, formula: Iterable[str], notes: list[str]) -> list[Site]:
    """Return the rows of atoms that stand for atoms.

    Args:
        block: with the rows.
        formula: elements of the printed formula, none if there is none.
        notes: to which is added how the rows were read.

    Raises:
        TextError: a row is not an atom; names it.
    """
    printed = frozenset(formula)
    names = ("label", "type_symbol", "occupancy", "calc_flag", "disorder_group", "disorder_assembly")
    columns = {name: block.column((SITE + name,)) for name in names}
    points = [block.column((f"{SITE}fract_{axis}",)) for axis in "xyz"]
    if any(column is None for column in points):
        raise TextError("its atoms have no three fractional coordinates")
    rows = list(zip(*(column or () for column in points), strict=True))
    found, dummies = [], 0
    groups: dict[str | None, set[str]] = {}
    missing = [None] * len(rows)
    for i, (position, label, kind, share, flag, group, assembly) in enumerate(
        zip(rows, *(columns[name] or missing for name in names), strict=True)
    ):
        name = label or kind or f"row {i + 1}"
        occupancy = 1.0 if share is None else number(share, f"the occupancy of {name}")[0]
        if (flag is not None and flag.lower() == "dum") or occupancy == 0:
            dummies += 1
            continue
        if not 0 < occupancy < 1.01:
            raise TextError(f"the occupancy of {name} is {occupancy:g}: it lies between 0 and 1")
        if group not in (None, "0"):
            groups.setdefault(assembly, set()).add(group.lstrip("-"))
        symbol, note = _element(kind, label, printed)
        if note and note not in notes:
            notes.append(note)
        coordinates = [
            _coordinate(x) or number(x, f"coordinate {axis} of {name}")
            for x, axis in zip(position, "xyz", strict=True)
        ]
        point, units = ([pair[i] for pair in coordinates] for i in (0, 1))
        full = abs(occupancy - 1) < FULL
        found.append(Site(name, symbol, point, units, 1.0 if full else occupancy))
    if any(len(group) > 1 for group in groups.values()):
        raise TextError("its atoms have alternative positions (disorder groups): it is disordered")
    if dummies:
        notes.append(f"{dummies} rows are dummies or empty sites, and left out")
    if not found:
        raise TextError("it has no atoms")
    return found


def _coordinate(text: str | None) -> tuple[float, float] | None:
    """Return a coordinate and its last digit; None for what is not a number.

    One of 0, 0.5, 0.25 and the like is exact, however it is written.
    """
    if text is None:
        return None
    whole, _, digits = text.partition(".")
    if whole in _COMMON and digits.isdigit():  # as most are: parse_number takes twice as long
        value, unit = float(text), 0.1 ** len(digits)
    else:
        found = parse_number(text)
        if found is None:
            return None
        value, unit = found
    exact = abs(24 * value - round(24 * value)) < 1e-9
    return value, MIN_UNIT if exact or unit < MIN_UNIT else min(unit, MAX_UNIT)


def _element(kind: str | None, label: str | None, printed: frozenset[str]) -> tuple[str, str]:
    """Return the element of a row of atoms, and a note on how it was read."""
    if kind is not None:
        try:
            return _of_type(kind, printed)
        except TextError as error:
            raise TextError(f"the type of {label or kind}: {error}") from None
    if label is None:
        raise TextError("its atoms have neither types nor labels")
    return element_names.of_label(label, printed)


_of_type = lru_cache(maxsize=1024)(element_names.of_type)
