"""Fingerprints, validity and properties of crystals for `unconditional`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, install, quiet_libraries
from crystallm.execution.mapping import run_tasks
from crystallm.execution.tasks import Failure, Limits
from crystallm.structures import conversion
from crystallm.validity import composition_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats

    Sample = Structure | str | None

BLOCK = 512
"""Number of generated crystals compared at a time; with 9,000 references, 40 MB of distances."""


@dataclass(frozen=True, slots=True)
class CrystalDescription:
    """Validity, fingerprints and properties of one crystal; see `unconditional`.

    Attributes:
        composition_valid: whether its composition passes the SMACT test.
        structure_valid: whether cell, volume and distances are plausible.
        density: g/cm^3; None if not a crystal.
        n_elements: number of elements; None if not a crystal.
        structure: fingerprint of the structure; None if missing.
        composition: fingerprint of the composition, not scaled; None if missing.
        reason: why it is not valid, or a fingerprint is missing; "" if neither.
    """

    composition_valid: bool = False
    structure_valid: bool = False
    density: float | None = None
    n_elements: int | None = None
    structure: tuple[float, ...] | None = None
    composition: tuple[float, ...] | None = None
    reason: str = ""

    @property
    def valid(self) -> bool:
        """Whether composition and structure are valid."""
        return self.composition_valid and self.structure_valid

    @property
    def readable(self) -> bool:
        """Whether it has both fingerprints."""
        return self.structure is not None and self.composition is not None


def describe(
    samples: Sequence[Sample],
    *,
    workers: int = 1,
    seconds: float = 120.0,
    on_done: Callable[[int], None] | None = None,
) -> list[CrystalDescription]:
    """Describe crystals in worker processes; arguments as for `unconditional.evaluate`.

    Identical samples are described once. A crystal whose fingerprint fails is described without one.
    """
    for module in ("smact", "matminer"):
        if find_spec(module) is None:
            raise CrystallmError(f"this benchmark needs {module}: {install('bench')}")
    keys = [None if sample is None else json.dumps(conversion.to_json(sample)) for sample in samples]
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    how: dict[str, Any] = {"workers": workers, "limits": Limits(seconds)}
    tasks = [{"sample": key, "fingerprints": True} for key in distinct]
    values = run_tasks(None, describe_record, tasks, on_done=on_done, **how)
    records = dict(zip(distinct, values, strict=True))
    failed = {key: answer.reason for key, answer in records.items() if isinstance(answer, Failure)}
    again = run_tasks(
        None, describe_record, [{"sample": key, "fingerprints": False} for key in failed], **how
    )
    for (key, reason), answer in zip(failed.items(), again, strict=True):
        record = {} if isinstance(answer, Failure) else answer
        records[key] = record | {"reason": f"no fingerprint: {reason}"}
    missing = CrystalDescription(reason="no crystal")
    return [missing if key is None else from_record(records[key]) for key in keys]


def describe_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a crystal of a JSON task, in a worker process; see `CrystalDescription`."""
    record = json.loads(task["sample"])
    with quiet_libraries():  # pymatgen and matminer warn about missing radii and properties
        try:
            crystal = conversion.from_json(record)
        except CrystallmError as error:
            counts = _counts_of_rows(record["text"]) if "text" in record else ()
            passes = bool(counts) and composition_tests.passes_smact(counts)
            return {"composition_valid": passes, "reason": f"no crystal: {error}"}
        invalid = _invalid_reason(crystal)
        ordered = crystal.is_ordered
        counts = tuple(sorted(crystal.composition.get_el_amt_dict().items()))
        passes = ordered and composition_tests.passes_smact(counts)
        reason = invalid or ("" if passes else "its composition fails the SMACT test")
        answer: dict[str, Any] = {
            "composition_valid": passes,
            "structure_valid": not invalid,
            "density": float(crystal.density),
            "n_elements": len(crystal.composition),
            "reason": reason,
        }
        if task["fingerprints"] and ordered and composition_tests.is_sensible(crystal):
            _featurizers()  # a broken installation raises here, not as a fault of the crystal
            try:
                answer |= _fingerprints(crystal)
            except Exception as error:  # noqa: BLE001 - Voronoi tessellations fail in many ways
                why = " ".join(str(error).split())[:120] or type(error).__name__
                answer["reason"] = reason or f"no fingerprint: {why}"
    return answer


def from_record(record: Mapping[str, Any]) -> CrystalDescription:
    """Build a description from a record of `describe_record`."""
    prints = {name: tuple(record[name]) for name in ("structure", "composition") if record.get(name)}
    return CrystalDescription(**{**record, **prints})


# -- one crystal ---------------------------------------------------------------------------------------------


def _invalid_reason(crystal: Structure) -> str:
    """Return why a structure is not valid; "" if it is."""
    if not composition_tests.is_sensible(crystal):
        return "its cell is not sensible"
    if not crystal.is_ordered:
        return "its sites are shared"
    if crystal.volume < composition_tests.SMALLEST:
        return f"its volume is {crystal.volume:.2g} Å^3"
    return composition_tests.overlap(crystal)


def _counts_of_rows(text: str) -> tuple[tuple[str, float], ...]:
    """Count the atoms in the rows of a CIF whose atoms overlap; () if the CIF is invalid otherwise."""
    from crystallm.cif import block as cif_block

    counts: dict[str, float] = {}
    try:
        block = cif_block.read(text)
        for name in cif_block.LENGTHS + cif_block.ANGLES:
            cif_block.number(block.tags.get(name, "none"))
        for row in block.atoms():
            for name in cif_block.POSITION:
                cif_block.number(row.get(name, "none"))
            size = cif_block.number(row.get("_atom_site_symmetry_multiplicity", "1"))
            symbol = cif_block.row_symbol(row)
            counts[symbol] = counts.get(symbol, 0) + size
    except CrystallmError:
        return ()
    are_whole = all(count == round(count) > 0 for count in counts.values())
    return tuple(sorted(counts.items())) if are_whole else ()


def _fingerprints(crystal: Structure) -> dict[str, list[float]]:
    """Compute both fingerprints of an ordered crystal."""
    import numpy as np

    of_sites, of_compositions = _featurizers()
    composition = of_compositions.featurize(crystal.composition)  # [132]
    if not np.isfinite(composition).all():
        raise CrystallmError(f"{crystal.composition.reduced_formula} has an element without Magpie values")
    sites = [of_sites.featurize(crystal, i) for i in range(len(crystal))]  # [n_atoms, 61]
    structure = np.mean(sites, axis=0)
    if not np.isfinite(structure).all():
        raise CrystallmError("CrystalNN's fingerprint is not finite")
    return {"structure": structure.tolist(), "composition": [float(x) for x in composition]}


@cache
def _featurizers() -> tuple[Any, Any]:
    from matminer.featurizers.composition.composite import ElementProperty
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops"), ElementProperty.from_preset("magpie", impute_nan=False)


# -- many crystals -------------------------------------------------------------------------------------------


def scaler() -> tuple[Floats, Floats]:
    """Return the published means and standard deviations of the Magpie features, each [132]."""
    import numpy as np

    published = json.loads(
        (resources.files("crystallm.benchmarks") / "data" / "magpie_scaler.json").read_text("utf-8")
    )
    return np.array(published["means"]), np.array(published["stds"])
