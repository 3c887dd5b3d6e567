"""Crystals as OPTIMADE structures (specification 1.2), and the head of a JSON Lines file.

Needs no library to write; where the package `optimade` is installed, its models look at each record. Refuses
to know where crystals come from.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache, reduce
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure

API_VERSION = "1.2.0"
PREFIX = "_crystallm_"
"""Prefix of properties beside the standard ones."""
WHEN = "1970-01-01T00:00:00Z"
"""Default of `last_modified`: equal crystals have equal bytes."""


def heads() -> list[dict[str, Any]]:
    """Return the lines before the structures."""
    return [
        {"x-optimade": {"meta": {"api_version": API_VERSION}}},
        {
            "type": "info",
            "id": "structures",
            "description": "Crystal structures written by crystallm",
            "properties": {},
        },
    ]


def resource(
    name: str, structure: Structure, facts: Mapping[str, Any] | None = None, *, when: datetime | None = None
) -> dict[str, Any]:
    """Return a structures resource.

    Args:
        structure: ordered; periodic in three directions, positions in Å.
        facts: properties, stored with our prefix.
        when: time of the last change; 1970-01-01 if None.
    """
    symbols = [site.specie.symbol for site in structure]
    order = sorted(set(symbols))
    counts = {symbol: symbols.count(symbol) for symbol in order}
    shared = reduce(math.gcd, counts.values())
    by_number = sorted(counts.values(), reverse=True)
    attributes: dict[str, Any] = {
        "last_modified": WHEN if when is None else when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "elements": order,
        "nelements": len(order),
        "elements_ratios": [counts[symbol] / len(symbols) for symbol in order],
        "chemical_formula_descriptive": _formula(counts),
        "chemical_formula_reduced": _formula({s: n // shared for s, n in counts.items()}),
        "chemical_formula_anonymous": _formula(
            {_letter(i): n // shared for i, n in enumerate(by_number)}, in_order=True
        ),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "nsites": len(symbols),
        "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in order],
        "species_at_sites": symbols,
        "structure_features": [],
    }
    prefixed = {f"{PREFIX}{key}": value for key, value in (facts or {}).items() if value is not None}
    return {"type": "structures", "id": name, "attributes": attributes | prefixed}


def check(record: Mapping[str, Any]) -> None:
    """Validate a resource by the models of the package `optimade`, if that is installed.

    Raises:
        CrystallmError: it is not what the specification says.
    """
    if find_spec("optimade") is None:
        return
    try:
        _model().model_validate(dict(record))
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise CrystallmError(f"{record.get('id')}: no OPTIMADE structure: {said}") from None


@cache
def _model() -> Any:
    from optimade.models import StructureResource

    return StructureResource


def _formula(counts: Mapping[str, int], *, in_order: bool = False) -> str:
    names = counts if in_order else sorted(counts)
    return "".join(f"{name}{counts[name]}" if counts[name] > 1 else name for name in names)


def _letter(i: int) -> str:
    """Return A, B, ..., Z, Aa, Ba, ..., the names of anonymous elements in the specification."""
    capital = chr(ord("A") + i % 26)
    return capital if i < 26 else capital + chr(ord("a") + i // 26 - 1)
