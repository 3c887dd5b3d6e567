"""One row of a collection through the steps that need no other row: read, filter, symmetrise, encode.

    read       the text is a crystal
    ordered    each site holds one whole atom
    elements   every element has a token
    atoms      of the cell as it is given, at most `max_atoms`
    volume     V / n_atoms within `min_volume` and `max_volume`, Å^3
    distance   no two atoms nearer than `min_distance`, Å
    encode     spglib finds a symmetry, and the language has words for the crystal
    length     at most `max_tokens`

The first step that refuses a row names its reason. A text is parsed once and its symmetry sought once. This
module runs in worker processes: plain values come in and go out. It refuses to know other rows and files.
"""

from __future__ import annotations

import base64
import hashlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.datasets.options import PrepareOptions
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure


COLUMNS = {
    "id": "string",
    "source": "string",
    "split": "string",
    "step": "string",
    "reason": "string",
    "formula": "string",
    "cell": "string",
    "space_group": "int16",
    "n_atoms": "int32",
    "volume": "float64",
    "digest": "int64",
    "n_tokens": "int32",
    "ids": "binary",
    "cif": "string",
}
"""Of a row that was treated. `step` and `reason` of a refused one, else empty. `formula` reduced; `cell`,
`space_group` and `n_atoms` of the conventional cell, where its symmetry was sought; `volume` in Å^3 of a
formula unit; `digest` of the text; `ids` little-endian uint16; `cif` with language `none`."""


def treat_unit(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Treat rows.

    Args:
        task: `choices`, a record of Choices, and `rows`, each with id, source, split, text, format, problem.

    Returns:
        One record of COLUMNS a row, in their order; `ids` as base64, since records travel as JSON.
    """
    choices = PrepareOptions(**task["choices"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each radius and electronegativity it lacks
        return [treat(row, choices) for row in task["rows"]]


def treat(row: Mapping[str, Any], choices: PrepareOptions) -> dict[str, Any]:
    """Treat one row; never raises on what its text holds."""
    found: dict[str, Any] = dict.fromkeys(COLUMNS) | {"step": "", "reason": ""}
    found |= {name: row[name] for name in ("id", "source", "split")}
    if row["text"] is None:
        return found | refused("read", row["problem"])
    step = "read"
    try:
        from crystallm.sources import parsing

        structure = parsing.structure(row["text"], row["format"])
        found |= {"formula": "", "n_atoms": len(structure)}
        problem = _filtered(structure, choices)
        if problem is not None:
            return found | refused(*problem)
        formula, units = structure.composition.get_reduced_formula_and_factor()
        found |= {"formula": formula, "volume": structure.volume / units}
        step = "encode"
        if choices.language == "none":
            return found | _as_cif(structure, row, choices)
        return found | _encoded(structure, choices)
    except CrystallmError as error:
        return found | refused(step, str(error))
    except Exception as error:  # noqa: BLE001 - libraries raise anything on odd crystals; the reason is kept
        return found | refused(step, f"{type(error).__name__}: {error}")


def refused(step: str, reason: str) -> dict[str, str]:
    """The part of a record that says so; one line."""
    return {"step": step, "reason": " ".join(reason.split())[:300]}


def _filtered(structure: Structure, choices: PrepareOptions) -> tuple[str, str] | None:
    """The step that refuses a structure and why, or None."""
    from crystallm.crystallography import elements

    if not np.isfinite(structure.volume):
        return "read", "a cell that is no number"
    if not structure.is_ordered:
        return "ordered", f"{structure.formula}: sites shared by elements or partly empty"
    unknown = sorted({s.symbol for s in structure.composition} - set(elements.symbols()))
    if unknown:
        return "elements", f"no token for the element {unknown[0]}"
    n_atoms = len(structure)
    if choices.max_atoms is not None and n_atoms > choices.max_atoms:
        return "atoms", f"more than {choices.max_atoms} atoms"
    volume = structure.volume / n_atoms
    if choices.min_volume is not None and volume < choices.min_volume:
        return "volume", f"less than {choices.min_volume:g} Å^3 per atom"
    if choices.max_volume is not None and volume > choices.max_volume:
        return "volume", f"more than {choices.max_volume:g} Å^3 per atom"
    if choices.min_distance and len(structure.get_neighbor_list(choices.min_distance)[0]):
        return "distance", f"atoms nearer than {choices.min_distance:g} Å"
    return None


def _encoded(structure: Structure, choices: PrepareOptions) -> dict[str, Any]:
    from crystallm.language import get_language

    language = get_language(choices.language)
    ids = language.encode(structure, choices.symprec)
    content = np.array(ids, dtype="<u2").tobytes()
    found = _symmetry(*language.read_prompt(ids)) | {"n_tokens": len(ids), "digest": digest(content)}
    if len(ids) > choices.max_tokens:
        return found | refused("length", f"more than {choices.max_tokens} tokens")
    return found | {"ids": base64.b64encode(content).decode("ascii")}


def _as_cif(structure: Structure, row: Mapping[str, Any], choices: PrepareOptions) -> dict[str, Any]:
    from crystallm.cif import parser, writer

    found: dict[str, Any] = {}
    text = row["text"] if row["format"] == "cif" else ""
    if choices.standardise:
        standard = writer.to_text(structure, choices.symprec)
        parsed = parser.parse(standard)
        text = writer.to_cif(standard)
        found |= _symmetry(dict(parsed.composition), parsed.space_group_number)
    elif choices.needs_symmetry:
        found |= _symmetry(*_sought(structure, choices.symprec))
    text = text or structure.to(fmt="cif")
    return found | {"cif": text, "digest": digest(text.encode())}


def _sought(structure: Structure, symprec: float) -> tuple[dict[str, int], int]:
    """Composition of the conventional cell, and number of the space group."""
    from crystallm.crystallography import elements
    from crystallm.orbits import description

    found = description.symmetry(structure, symprec)
    counts: dict[str, int] = {}
    for number in found.std_types.tolist():
        symbol = elements.SYMBOLS_BY_NUMBER[number - 1]
        counts[symbol] = counts.get(symbol, 0) + 1
    return counts, int(found.number)


def _symmetry(counts: Mapping[str, int], number: int) -> dict[str, Any]:
    from crystallm.crystallography import elements

    order = elements.electronegativity_order(counts)
    cell = "".join(f"{symbol}{counts[symbol]}" for symbol in order)
    return {"cell": cell, "space_group": number, "n_atoms": sum(counts.values())}


def digest(content: bytes) -> int:
    """64 bits of content, as a signed whole number: among a million texts two agree once in 4e7 times."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
