"""Rows of atoms of a CIF: elements, fractions, occupancies; dummies and empty sites are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crystallm.cif.items import Items, number
from crystallm.crystallography import element_names
from crystallm.errors import TextError

SITE = "_atom_site_"
FULL = 1e-3
"""Largest difference of an occupancy from 1 at a full site."""
MIN_UNIT, MAX_UNIT = 1e-4, 1e-2
"""Bounds of the last digit of a coordinate, fractions."""


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


def read_sites(block: Items, printed: Mapping[str, float], notes: list[str]) -> list[Site]:
    """Return the rows of atoms that stand for atoms."""
    names = ("label", "type_symbol", "occupancy", "calc_flag", "disorder_group", "disorder_assembly")
    columns = {name: block.column((SITE + name,)) for name in names}
    points = [block.column((f"{SITE}fract_{axis}",)) for axis in "xyz"]
    if any(column is None for column in points):
        raise TextError("its atoms have no three fractional coordinates")
    rows = list(zip(*(column or () for column in points), strict=True))
    found, dummies = [], 0
    groups: dict[str | None, set[str]] = {}
    for i, position in enumerate(rows):
        row = {name: None if column is None else column[i] for name, column in columns.items()}
        label = row["label"] or row["type_symbol"] or f"row {i + 1}"
        occupancy = (
            1.0 if row["occupancy"] is None else number(row["occupancy"], f"the occupancy of {label}")[0]
        )
        if (row["calc_flag"] or "").lower() == "dum" or occupancy == 0:
            dummies += 1
            continue
        if not 0 < occupancy < 1.01:
            raise TextError(f"the occupancy of {label} is {occupancy:g}: it lies between 0 and 1")
        if row["disorder_group"] not in (None, "0"):
            groups.setdefault(row["disorder_assembly"], set()).add(str(row["disorder_group"]).lstrip("-"))
        symbol, note = _element(row, label, printed)
        if note and note not in notes:
            notes.append(note)
        values = [number(x, f"coordinate {axis} of {label}") for x, axis in zip(position, "xyz", strict=True)]
        units = [_unit(value, unit) for value, unit in values]
        full = abs(occupancy - 1) < FULL
        found.append(Site(label, symbol, [value for value, _ in values], units, 1.0 if full else occupancy))
    if any(len(group) > 1 for group in groups.values()):
        raise TextError("its atoms have alternative positions (disorder groups): it is disordered")
    if dummies:
        notes.append(f"{dummies} rows are dummies or empty sites, and left out")
    if not found:
        raise TextError("it has no atoms")
    return found


def _unit(value: float, unit: float) -> float:
    """Return the last digit of a coordinate: one of 0, 0.5 or 0.25 is exact, however it is written."""
    exact = abs(24 * value - round(24 * value)) < 1e-9
    return MIN_UNIT if exact else min(max(unit, MIN_UNIT), MAX_UNIT)


def _element(row: Mapping[str, str | None], label: str, printed: Mapping[str, float]) -> tuple[str, str]:
    """Return the element of a row of atoms, and a note on how it was read."""
    kind = row["type_symbol"]
    if kind is not None:
        try:
            return element_names.of_type(kind, printed)
        except TextError as error:
            raise TextError(f"the type of {label}: {error}") from None
    if row["label"] is None:
        raise TextError("its atoms have neither types nor labels")
    return element_names.of_label(row["label"], printed)
