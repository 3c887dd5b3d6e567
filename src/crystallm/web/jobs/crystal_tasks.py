"""What is found out on a crystal in a process that can be lost: its sheet, pattern and files.

A sheet is all that a card of the page shows, as JSON. Lengths in Å, angles in degrees, volumes in Å^3,
energies in eV per atom, log-likelihoods in nats. Functions here take one JSON value and give one, so that a
crystal on which a library hangs costs itself alone. Refuses to know who asked.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, TextError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure

    from crystallm.validity.verdict import Validity


FORMS = ("cif", "poscar", "extxyz")
"""Kinds of files that a crystal can be taken home in."""

WAVELENGTH = "CuKa"

TWO_THETA = (5.0, 90.0)
"""Degrees between which a powder pattern is computed."""

MOST_DRAWN = 1500
"""Atoms and their images beyond which a cell is not drawn."""

ASKED, CHOSEN, FORCED, SAMPLED = 0, 1, 2, 3
"""Where a token comes from: what was asked, what was chosen for `auto`, the rules, or chance."""


def crystal_summary(task: Mapping[str, Any]) -> dict[str, Any]:
    """The sheet of a crystal that a network wrote.

    Args:
        task: `language`, `ids`, `n_asked`, `n_prompt`, `forced`, `log_probs`, `log_likelihood`, `ended`, and
            `judge`: whether it is to be judged.
    """
    from crystallm.crystals.crystal import Crystal
    from crystallm.language import get_language

    language = get_language(task["language"])
    crystal = Crystal(
        language,
        task["ids"],
        n_prompt=task["n_asked"],
        log_likelihood=task["log_likelihood"],
        ended=task["ended"],
    )
    found: dict[str, Any] = {
        "log_likelihood": _number(task["log_likelihood"]),
        "n_tokens": len(task["ids"]),
        "ended": task["ended"],
        "tokens": _tokens(task, language.vocabulary()),
    }
    if task.get("judge", True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found |= validity_summary(crystal.validity)
    try:
        text = crystal.text if crystal.ended else ""
        structure = crystal.structure
        return found | {"text": text, "cif": crystal.cif} | described(structure, text)
    except TextError as error:
        return found | {"text": crystal.written, "broken": str(error)}


def validity_summary(verdict: Validity) -> dict[str, Any]:
    """What a sheet says of a verdict."""
    return {
        "valid": verdict.valid,
        "reasons": list(verdict.reasons),
        "checks": {
            name: getattr(verdict, name) for name in ("sensible", "formula", "multiplicity", "space_group")
        },
        "bond_score": _number(verdict.bond_score),
    }


def judged(task: Mapping[str, Any]) -> dict[str, Any]:
    """The sheet of a crystal that somebody handed in, `text`, judged as `what` says."""
    from dataclasses import asdict

    from crystallm.validity import checks

    verdict, facts = checks.inspect(task["text"], task["what"])
    return validity_summary(verdict) | {"facts": asdict(facts)} | _handed_in(task["text"])


def uploaded_summary(task: Mapping[str, Any]) -> dict[str, Any]:
    """The sheet of a crystal that somebody handed in, `text`, not judged."""
    return _handed_in(task["text"])


def _handed_in(text: str) -> dict[str, Any]:
    from crystallm.cif import standard_structure, structure_reader, writer
    from crystallm.validity import checks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            standard = (
                text if checks.is_standard(text) else writer.to_text(structure_reader.read_structure(text))
            )
            return {"text": standard, "cif": writer.to_cif(standard)} | described(
                standard_structure.to_structure(standard), standard
            )
        except CrystallmError as error:
            return {"broken": str(error)}


def relaxed(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a crystal has become; `record` is that of `energy.relax.Relaxed`."""
    from crystallm.energy import relaxation
    from crystallm.structures import conversion

    record = task["record"]
    structure = conversion.from_json(record["structure"])
    group = relaxation.space_group(structure)
    found = described(structure, "")
    found |= {"space_group": group[0], "space_group_number": group[1]} if group else {}
    told = {name: record[name] for name in ("energy_before", "energy", "steps", "converged", "fmax")}
    return found | told | {"cif": relaxation.to_cif(structure)}


def described(structure: Structure, text: str) -> dict[str, Any]:
    """What a structure is like: cell, atoms, picture; and its orbits, where there is a standard text."""
    from crystallm.crystallography import formula
    from crystallm.structures import conversion

    counts = {str(s): round(n) for s, n in structure.composition.get_el_amt_dict().items()}
    made = formula.cell("".join(f"{symbol}{count}" for symbol, count in counts.items()))
    lattice = structure.lattice
    found: dict[str, Any] = {
        "formula": made.formula,
        "reduced_formula": made.reduced_formula,
        "z": made.z,
        "n_atoms": len(structure),
        "composition": [list(pair) for pair in made.composition],
        "cell": [round(value, 5) for value in lattice.parameters],
        "volume": round(lattice.volume, 4),
        "volume_per_atom": round(lattice.volume / len(structure), 4),
        "density": _number(float(structure.density)),
        "structure": conversion.to_json(structure),
        "view": _view(structure),
    }
    return found | (_symmetry(text) if text else {})


def _symmetry(text: str) -> dict[str, Any]:
    """Space group and orbits of a standard text, each with its Wyckoff position."""
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
    """Atoms, those on faces repeated, and bonds, as they are drawn; None for a cell too large for that."""
    from crystallm.visualization import unit_cell

    if len(structure) > MOST_DRAWN // 4:
        return None
    try:
        symbols, points = unit_cell.drawn_atoms(structure)
    except ValueError:
        return None
    if len(symbols) > MOST_DRAWN:
        return None
    bonds = unit_cell.drawn_bonds(structure, symbols, points)
    return {
        "cell": [[round(x, 4) for x in row] for row in structure.lattice.matrix.tolist()],
        "atoms": [[s, *(round(x, 3) for x in p)] for s, p in zip(symbols, points.tolist(), strict=True)],
        "bonds": [list(pair) for pair in bonds],
    }


def _tokens(task: Mapping[str, Any], vocabulary: tuple[str, ...]) -> list[list[Any]]:
    """(Text, where it comes from, its probability) of each token."""
    n_prompt, n_asked = task["n_prompt"], task["n_asked"]
    found: list[list[Any]] = []
    for place, token in enumerate(task["ids"]):
        if place < n_prompt:
            found.append([vocabulary[token], ASKED if place < n_asked else CHOSEN, None])
            continue
        forced = task["forced"][place - n_prompt]
        chance = math.exp(min(0.0, task["log_probs"][place - n_prompt]))
        found.append([vocabulary[token], FORCED if forced else SAMPLED, round(chance, 4)])
    return found


def pattern(task: Mapping[str, Any]) -> dict[str, Any]:
    """The powder X-ray pattern of a packed structure, by pymatgen, Cu K-alpha."""
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    from crystallm.structures import conversion

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = XRDCalculator(wavelength=WAVELENGTH).get_pattern(
            conversion.from_json(task["structure"]), two_theta_range=TWO_THETA
        )
    peaks = [
        {
            "two_theta": round(float(x), 4),
            "intensity": round(float(y), 3),
            "d": round(float(d), 5),
            "hkl": [list(map(int, one["hkl"])) for one in hkls],
        }
        for x, y, hkls, d in zip(found.x, found.y, found.hkls, found.d_hkls, strict=True)
    ]
    return {"radiation": "Cu Kα", "wavelength": 1.54184, "two_theta": list(TWO_THETA), "peaks": peaks}


def files(task: Mapping[str, Any]) -> list[dict[str, str]]:
    """The crystal of each sheet in all forms.

    Args:
        task: `sheets`, of each `cif`, `structure`, `formula`, and `energy` where it is known.
    """
    return [file_of(one) for one in task["sheets"]]


def file_of(one: Mapping[str, Any]) -> dict[str, str]:
    """One crystal in all forms."""
    from pymatgen.io.vasp import Poscar

    from crystallm.structures import conversion

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = conversion.from_json(one["structure"])
        energy = one.get("energy")  # per atom; in a file that of the cell
        poscar = Poscar(structure.get_sorted_structure(), comment=one["formula"])
        return {
            "cif": one["cif"],
            "poscar": poscar.get_str(significant_figures=10),
            "extxyz": conversion.frame(
                structure, {"energy": None if energy is None else energy * len(structure)}
            ),
        }


def _number(value: float | None) -> float | None:
    """A number that JSON has."""
    return None if value is None or not math.isfinite(value) else round(value, 6)
