"""Process one row of a collection: read, filter, find the symmetry and encode. Each row on its own.

    read       the text is a crystal
    ordered    each site holds one whole atom
    elements   every element has a token
    atoms      at most `max_atoms` in the given cell
    volume     V / n_atoms within `min_volume` and `max_volume`, Å^3
    distance   no two atoms closer than `min_distance`, Å
    encode     spglib finds a symmetry, and the language can describe the crystal
    length     at most `max_length`

The first step that rejects a row gives the reason. A text is parsed once and its symmetry determined once.
This module runs in worker processes: plain values come in and go out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.crystallography import elements
from crystallm.datasets.options import PrepareOptions
from crystallm.datasets.properties import computed
from crystallm.errors import CrystallmError, quiet_libraries
from crystallm.language import get_language

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure

COLUMNS = {
    "id": "string",
    "source": "string",
    "split": "string",
    "step": "string",
    "reason": "string",
    "note": "string",
    "formula": "string",
    "cell": "string",
    "space_group": "int16",
    "n_atoms": "int32",
    "volume": "float64",
    "digest": "int64",
    "n_tokens": "int32",
    "ids": "binary",
    "cif": "string",
    "properties": "string",
}
"""Columns of a processed row. `step` and `reason` of a rejected one, else empty; `note` on how it was read;
`formula` reduced; `cell`, `space_group` and `n_atoms` of the conventional cell, where its symmetry was
determined; `volume` in Å^3 per formula unit; `digest` of the text; `ids` little-endian uint16; `cif` with
language `none`; `properties` as JSON, by name."""


def process_rows(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Process rows, in a worker process.

    Args:
        task: `options`, JSON values of PrepareOptions; `symmetry`, whether to determine it without a language
            too; and `rows`, each with id, source, split, text, format, problem and, as
            numbers, the values of properties.

    Returns:
        One record with COLUMNS per row, in their order; `ids` as base64, since records travel as JSON.
    """
    options = PrepareOptions(**task["options"])
    with quiet_libraries():
        return [process_row(row, options, symmetry=task["symmetry"]) for row in task["rows"]]


def process_row(row: Mapping[str, Any], options: PrepareOptions, *, symmetry: bool) -> dict[str, Any]:
    """Process one row; never raises, whatever its text holds."""
    record: dict[str, Any] = dict.fromkeys(COLUMNS) | {"step": "", "reason": "", "note": ""}
    record |= {name: row[name] for name in ("id", "source", "split")}
    if row["text"] is None:
        return record | rejected("read", row["problem"])
    step = "read"
    try:
        from crystallm.sources import parsing

        reading = parsing.read(row["text"], row["format"])
        structure = reading.structure
        record |= {"formula": "", "n_atoms": len(structure), "note": "; ".join(reading.notes)}
        rejection = _filter(structure, options)
        if rejection is not None:
            return record | rejected(*rejection)
        formula, units = structure.composition.get_reduced_formula_and_factor()
        properties = {**row["values"], **computed(structure)}
        record |= {
            "formula": formula,
            "volume": structure.volume / units,
            "properties": json.dumps(properties),
        }
        step = "encode"
        if options.language == "none":
            return record | _as_cif(structure, row, options, symmetry=symmetry)
        return record | _encode(structure, options)
    except CrystallmError as error:
        return record | rejected(step, str(error))
    except Exception as error:  # noqa: BLE001 - libraries raise anything for odd crystals; the reason is kept
        return record | rejected(step, f"{type(error).__name__}: {error}")


def rejected(step: str, reason: str) -> dict[str, str]:
    """Return the step and the reason of a rejected row, in one line."""
    return {"step": step, "reason": " ".join(reason.split())[:300]}


def _filter(structure: Structure, options: PrepareOptions) -> tuple[str, str] | None:
    """Return the step that rejects a structure and why, or None."""
    if not np.isfinite(structure.volume):
        return "read", "a cell with NaN"
    if not structure.is_ordered:
        return "ordered", f"{structure.formula}: sites shared by elements or partly empty"
    unknown = sorted({element.symbol for element in structure.composition} - set(elements.symbols()))
    if unknown:
        return "elements", f"no token for the element {unknown[0]}"
    n_atoms = len(structure)
    if options.max_atoms is not None and n_atoms > options.max_atoms:
        return "atoms", f"more than {options.max_atoms} atoms"
    volume = structure.volume / n_atoms
    if options.min_volume is not None and volume < options.min_volume:
        return "volume", f"less than {options.min_volume:g} Å^3 per atom"
    if options.max_volume is not None and volume > options.max_volume:
        return "volume", f"more than {options.max_volume:g} Å^3 per atom"
    if options.min_distance and len(structure.get_neighbor_list(options.min_distance)[0]):
        return "distance", f"atoms closer than {options.min_distance:g} Å"
    return None


def _encode(structure: Structure, options: PrepareOptions) -> dict[str, Any]:
    language = get_language(options.language)
    ids = language.encode(structure, options.symprec)
    content = np.array(ids, dtype="<u2").tobytes()
    record = _symmetry_columns(*language.read_prompt(ids)) | {"n_tokens": len(ids), "digest": digest(content)}
    if len(ids) > options.max_length:
        return record | rejected("length", f"more than {options.max_length} tokens")
    return record | {"ids": base64.b64encode(content).decode("ascii")}


def _as_cif(
    structure: Structure, row: Mapping[str, Any], options: PrepareOptions, *, symmetry: bool
) -> dict[str, Any]:
    from crystallm.cif import parser, writer
    from crystallm.sources import parsing

    record: dict[str, Any] = {}
    text = row["text"] if row["format"] == "cif" else ""
    if options.standardize:
        standard = writer.to_text(structure, options.symprec)
        parsed = parser.parse(standard)
        text = writer.to_cif(standard)
        record = _symmetry_columns(dict(parsed.composition), parsed.space_group_number)
    elif symmetry:
        record = _symmetry_columns(*_find_symmetry(structure, options.symprec))
    text = text or parsing.to_cif(structure)
    return record | {"cif": text, "digest": digest(text.encode())}


def _find_symmetry(structure: Structure, symprec: float) -> tuple[dict[str, int], int]:
    """Return the composition of the conventional cell, and the number of the space group."""
    from crystallm.orbits import description

    found = description.symmetry(structure, symprec)
    counts: dict[str, int] = {}
    for number in found.std_types.tolist():
        symbol = elements.SYMBOLS_BY_NUMBER[number - 1]
        counts[symbol] = counts.get(symbol, 0) + 1
    return counts, int(found.number)


def _symmetry_columns(counts: Mapping[str, int], number: int) -> dict[str, Any]:
    order = elements.electronegativity_order(counts)
    cell = "".join(f"{symbol}{counts[symbol]}" for symbol in order)
    return {"cell": cell, "space_group": number, "n_atoms": sum(counts.values())}


def digest(content: bytes) -> int:
    """Return 64 bits of content as a signed integer: two of a million texts agree with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
