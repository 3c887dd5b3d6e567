"""Properties of crystals: numbers that a data set keeps for each crystal, and that a network can be given.

    density, volume_per_atom    computed from the crystal, in every data set
    all others                  columns of the collections, or of a table with a column `id`

A missing value is NaN. Does not depend on how crystals are read.
"""

from __future__ import annotations

import csv
import math
import re
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pymatgen.core import Structure

COMPUTED = ("density", "volume_per_atom")
"""Properties that need no column."""
UNITS = {
    "density": "g/cm^3",
    "volume_per_atom": "Å^3/atom",
    "band_gap": "eV",
    "formation_energy_per_atom": "eV/atom",
    "e_above_hull": "eV/atom",
    "energy_per_atom": "eV/atom",
    "heat_all": "eV/atom",
    "heat_ref": "eV/atom",
    "dir_gap": "eV",
    "ind_gap": "eV",
    "bulk_modulus": "GPa",
    "shear_modulus": "GPa",
}
"""Units of computed properties, and of columns of well-known collections."""
MISSING = ("", "nan", "none", "null", "na", "n/a", "-")
"""Texts of a missing value, in small letters."""
_NAME = re.compile(r"[^\s:=,;]+")
ID_COLUMNS = ("id", "material_id")


def parse_properties(texts: Iterable[str]) -> dict[str, str]:
    """Return names and units of properties that are columns.

    Args:
        texts: `band_gap`, `hardness:GPa`, or several of these with commas between them.

    Raises:
        InputError: an impossible name.
    """
    found: dict[str, str] = {}
    for text in ",".join(texts).split(","):
        name, _, unit = (part.strip() for part in text.partition(":"))
        if not text.strip():
            continue
        if not _NAME.fullmatch(name):
            raise InputError(f"property = {text.strip()[:40]!r}: a name has no blanks and none of : = , ;")
        if name not in COMPUTED:
            found[name] = unit or UNITS.get(name, "")
    return found


def number(value: Any, where: str) -> float | None:
    """Return a value of a column as a number; None if it is missing.

    Args:
        value: a number or its text.
        where: of the value, for the message.

    Raises:
        InputError: it is not a number.
    """
    if value is None or str(value).strip().lower() in MISSING:
        return None
    try:
        parsed = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        parsed = math.inf
    if math.isnan(parsed):
        return None
    if math.isinf(parsed):
        raise InputError(
            f"{where} = {str(value)[:40]!r}: a property is a number, or empty where it is missing"
        )
    return parsed


def computed(structure: Structure) -> dict[str, float]:
    """Return the properties that follow from a crystal: density, g/cm^3, and volume per atom, Å^3."""
    return {
        "density": float(structure.density),
        "volume_per_atom": float(structure.volume / len(structure)),
    }


def read_values(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Read the properties of crystals by their ids from a CSV file.

    Raises:
        InputError: the file cannot be read, lacks a column, or has a value that is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = reader.fieldnames or ()
            identifier = next((name for name in ID_COLUMNS if name in columns), None)
            lacking = [name for name in names if name not in columns]
            if identifier is None or lacking:
                raise InputError(
                    f"{str(path)!r} has no column {(lacking or ['id'])[0]!r}; its columns: "
                    f"{', '.join(columns)[:200] or 'none'}"
                )
            found: dict[str, dict[str, float]] = {}
            for line, row in enumerate(reader, start=2):
                parsed = {name: number(row[name], f"{path}, line {line}: {name}") for name in names}
                found[row[identifier]] = {name: value for name, value in parsed.items() if value is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read as CSV: {error}") from None
    return found


def summary(values: Sequence[float]) -> dict[str, float | int]:
    """Return how many values there are, and the smallest, the mean and the largest."""
    n = len(values)
    if not n:
        return {"n": 0}
    return {"n": n, "min": min(values), "mean": math.fsum(values) / n, "max": max(values)}


def require_values(counts: Mapping[str, int], n_rows: int) -> None:
    """Raise InputError if a property has no value in any of n rows."""
    empty = next((name for name, count in counts.items() if not count), None)
    if empty is not None:
        raise InputError(
            f"property {empty!r}: none of the {n_rows:,} rows has a value; name a column of the CSV, Parquet "
            "or JSON files, or a CSV file with the columns id and the property (--property-table)"
        )
