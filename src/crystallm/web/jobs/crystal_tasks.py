"""Tasks on crystals for worker processes: summaries, powder patterns and files.

A summary is what the page shows of a crystal, as JSON: lengths in Å, angles in degrees, volumes in Å^3,
energies in eV per atom, log-likelihoods in nats. Each function takes and returns one JSON value, so that a
crystal on which a library hangs fails alone. Does not depend on jobs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, TextError, quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure

    from crystallm.validity.verdict import Validity

FORMATS = ("cif", "poscar", "extxyz")
"""Formats of the files of a crystal."""

WAVELENGTH = 1.54184
"""Of powder patterns: the mean of Cu K-alpha 1 and 2, Å."""
TWO_THETA = (5.0, 90.0)
"""Range of powder patterns, degrees."""

MAX_DRAWN_ATOMS = 1500
"""Largest number of drawn atoms, images included."""

REQUESTED, CHOSEN, FORCED, SAMPLED = 0, 1, 2, 3
"""Origin of a token: the request, the choice for `auto`, the grammar, or sampling."""


def crystal_summary(task: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise a generated crystal.

    Args:
        task: `language`, `ids`, `n_requested` (tokens of the request), `log_likelihood`, `ended`, and
            `check`: whether to check its validity; of a sampled one also `n_prompt` (with chosen tokens),
            `forced` and `log_probs`.
    """
    from crystallm.crystals.crystal import Crystal
    from crystallm.language import get_language

    language = get_language(task["language"])
    crystal = Crystal(
        language,
        task["ids"],
        n_prompt=task["n_requested"],
        log_likelihood=task["log_likelihood"],
        ended=task["ended"],
    )
    summary: dict[str, Any] = {
        "log_likelihood": _finite(task["log_likelihood"]),
        "n_tokens": len(task["ids"]),
        "ended": task["ended"],
    }
    if "forced" in task:
        summary["tokens"] = _tokens(task, language.vocabulary())
    if task["check"]:
        with quiet_libraries():
            summary |= validity_summary(crystal.validity)
    try:
        text = crystal.text if crystal.ended else ""
        return summary | {"text": text, "cif": crystal.cif} | structure_summary(crystal.structure, text)
    except TextError as error:
        return summary | {"text": crystal.sampled_text, "broken": str(error)}


def validity_summary(validity: Validity) -> dict[str, Any]:
    """Summarise the checks of a crystal."""
    checks = ("sensible", "formula", "multiplicity", "space_group")
    return {
        "valid": validity.valid,
        "plausible": validity.plausible,
        "reasons": list(validity.reasons),
        "checks": {name: getattr(validity, name) for name in checks},
        "bond_score": _finite(validity.bond_score),
    }


def uploaded_summary(task: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise an uploaded structure.

    Args:
        task: `text`, a CIF, and `read_as`: how to check it (`what` of `validity.checks.inspect`), or None.
    """
    from dataclasses import asdict

    from crystallm.cif import standard_structure, writer
    from crystallm.sources import parsing
    from crystallm.validity import checks

    text = task["text"]
    summary: dict[str, Any] = {}
    if task["read_as"] is not None:
        validity, facts = checks.inspect(text, task["read_as"])
        summary = validity_summary(validity) | {"facts": asdict(facts)}
    with quiet_libraries():
        try:
            if not checks.is_standard(text):
                reading = parsing.read(text)
                summary["note"] = "; ".join(reading.notes)
                text = writer.to_text(reading.structure)
            structure = standard_structure.to_structure(text)
            return summary | {"text": text, "cif": writer.to_cif(text)} | structure_summary(structure, text)
        except CrystallmError as error:
            return summary | {"broken": str(error)}


def relaxed_summary(task: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise a relaxed structure.

    Args:
        task: `record`, of `energy.relaxation.Relaxed`.
    """
    from crystallm.energy import relaxation
    from crystallm.structures import conversion

    record = task["record"]
    structure = conversion.from_json(record["structure"])
    summary = structure_summary(structure, "")
    if group := relaxation.space_group(structure):
        summary |= {"space_group": group[0], "space_group_number": group[1]}
    summary |= {name: record[name] for name in ("energy_before", "energy", "steps", "converged", "fmax")}
    return summary | {"cif": relaxation.to_cif(structure)}


def structure_summary(structure: Structure, text: str) -> dict[str, Any]:
    """Summarise cell and atoms of a structure; with a standard CIF text, also its orbits."""
    from crystallm.crystallography import formula
    from crystallm.structures import conversion

    counts = {str(s): round(n) for s, n in structure.composition.get_el_amt_dict().items()}
    cell = formula.cell("".join(f"{symbol}{count}" for symbol, count in counts.items()))
    lattice = structure.lattice
    summary: dict[str, Any] = {
        "formula": cell.formula,
        "reduced_formula": cell.reduced_formula,
        "z": cell.z,
        "n_atoms": len(structure),
        "composition": [list(pair) for pair in cell.composition],
        "cell": [round(value, 5) for value in lattice.parameters],
        "volume": round(lattice.volume, 4),
        "volume_per_atom": round(lattice.volume / len(structure), 4),
        "density": _finite(float(structure.density)),
        "structure": conversion.to_json(structure),
        "view": _view(structure),
    }
    return summary | (_symmetry(text) if text else {})


def _symmetry(text: str) -> dict[str, Any]:
    """Return space group and orbits of a standard text, each with its Wyckoff position."""
    from crystallm.cif import parser, standard_structure
    from crystallm.crystallography import space_groups

    parsed = parser.parse(text)
    group = space_groups.get(parsed.space_group_number)
    orbits = []
    for row in parsed.rows:
        snapped = group.snap([row.x, row.y, row.z], row.multiplicity, standard_structure.SNAP)  # type: ignore[arg-type] # made an array
        orbits.append(
            {
                "element": row.symbol,
                "wyckoff": "" if snapped is None else snapped[0].label,
                "free": [] if snapped is None else ["xyz"[axis] for axis in snapped[0].free],
                "multiplicity": row.multiplicity,
                "position": [row.x, row.y, row.z],
            }
        )
    return {
        "space_group": group.symbol,
        "space_group_number": group.number,
        "crystal_system": group.crystal_system,
        "orbits": orbits,
        "free_cell": list(group.free_cell),
        "n_operations": len(group.rotations),
    }


def _view(structure: Structure) -> dict[str, Any] | None:
    """Return atoms, those on faces repeated, and bonds as they are drawn; None for too large a cell."""
    from crystallm.visualization import unit_cell

    if len(structure) > MAX_DRAWN_ATOMS // 4:
        return None
    try:
        symbols, points = unit_cell.drawn_atoms(structure)
    except ValueError:
        return None
    if len(symbols) > MAX_DRAWN_ATOMS:
        return None
    bonds = unit_cell.drawn_bonds(structure, symbols, points)
    return {
        "cell": [[round(x, 4) for x in row] for row in structure.lattice.matrix.tolist()],
        "atoms": [[s, *(round(x, 3) for x in p)] for s, p in zip(symbols, points.tolist(), strict=True)],
        "bonds": [list(pair) for pair in bonds],
    }


def _tokens(task: Mapping[str, Any], vocabulary: tuple[str, ...]) -> list[list[Any]]:
    """Return (text, origin, probability) of each token."""
    n_prompt, n_requested = task["n_prompt"], task["n_requested"]
    tokens: list[list[Any]] = []
    for index, token in enumerate(task["ids"]):
        if index < n_prompt:
            tokens.append([vocabulary[token], REQUESTED if index < n_requested else CHOSEN, None])
            continue
        forced = task["forced"][index - n_prompt]
        probability = math.exp(min(0.0, task["log_probs"][index - n_prompt]))
        tokens.append([vocabulary[token], FORCED if forced else SAMPLED, round(probability, 4)])
    return tokens


def powder_pattern(task: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the lines of the powder X-ray pattern of `structure`, Cu K-alpha."""
    from crystallm.diffraction.powder_model import powder_lines
    from crystallm.diffraction.radiation import radiation_of
    from crystallm.structures import conversion

    with quiet_libraries():
        lines = powder_lines(
            conversion.from_json(task["structure"]), radiation_of(str(WAVELENGTH)), *TWO_THETA
        )
    peaks = [
        {
            "two_theta": round(line.two_theta, 4),
            "intensity": round(line.intensity, 3),
            "d": round(line.d, 5),
            "hkl": [list(indices) for indices in line.indices],
        }
        for line in lines
    ]
    return {"radiation": "Cu Kα", "wavelength": WAVELENGTH, "two_theta": list(TWO_THETA), "peaks": peaks}


def crystal_files(task: Mapping[str, Any]) -> list[dict[str, str]]:
    """Write crystals in all formats.

    Args:
        task: `crystals`, each with `cif`, `structure`, `formula`, and its `energy`, eV per atom, or None.
    """
    from pymatgen.io.vasp import Poscar

    from crystallm.structures import conversion

    files = []
    with quiet_libraries():
        for crystal in task["crystals"]:
            structure = conversion.from_json(crystal["structure"])
            energy = crystal["energy"]
            cell_energy = None if energy is None else energy * len(structure)
            poscar = Poscar(structure.get_sorted_structure(), comment=crystal["formula"])
            files.append(
                {
                    "cif": crystal["cif"],
                    "poscar": poscar.get_str(significant_figures=10),
                    "extxyz": conversion.frame(structure, {"energy": cell_energy}),
                }
            )
    return files


def _finite(value: float | None) -> float | None:
    """Round a number; None for one that JSON does not have."""
    return None if value is None or not math.isfinite(value) else round(value, 6)
