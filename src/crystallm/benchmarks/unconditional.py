"""Crystals written without a prompt, against a test set: validity, coverage, and how properties are spread.

CDVAE's task, as the CrystaLLM paper does it. For N generated crystals G_i and M true ones T_j:

- composition validity: the share of all N whose composition passes the SMACT test (`csp.passes_smact`). Where
  a CIF puts atoms on top of each other, so that no crystal can be built, its atom rows are the composition.
- structure validity: the share of all N whose cell is sensible (lengths in [0.5, 1000] Å, angles in [10, 170]
  degrees), whose volume is at least 0.1 Å^3, and no two of whose atoms are closer than 0.5 Å.
- fingerprints: s = mean over the atoms of CrystalNN's `ops` site fingerprint; c = (Magpie composition
  fingerprint - mean) / standard deviation, with the published means and standard deviations. A crystal is
  readable if its cell is sensible and it has both. R of the generated and Q of the true ones are.
- distances: with d the Euclidean distance, and each minimum taken for itself,

      S_j = min_i d(s(G_i), s(T_j)),  C_j = min_i d(c(G_i), c(T_j))    for true crystals, i over readable G
      S'_i = min_j d(s(G_i), s(T_j)), C'_i = min_j d(c(G_i), c(T_j))   for generated ones, j over readable T

- coverage recall: #{j: S_j <= cut-off and C_j <= cut-off} / Q.
- coverage precision: #{i: S'_i <= cut-off and C'_i <= cut-off} / R as the paper has it, which forgives what
  cannot be read, and / N.
- Wasserstein distance: of the densities (g/cm^3), and of the numbers of elements, of n valid crystals (both
  validities; all of them where there are fewer) from those of all true ones.

matminer 0.10 and SMACT 4 give the figures of matminer 0.9 and SMACT 2.5.5. The one difference: helium, neon
and argon lack Magpie values, in whose place matminer would now put means; here crystals with them have no
fingerprint. This module refuses to know who wrote the crystals.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError, install
from crystallm.execution import mapping
from crystallm.execution import tasks as execution_tasks
from crystallm.structures import conversion
from crystallm.validity import composition_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats

    Sample = Structure | str | None

BLOCK = 512
"""Generated crystals whose distances from all true ones are held at a time: 9,000 true ones make 40 MB."""


@dataclass(frozen=True, slots=True)
class CutOffs:
    """Distances up to which one crystal covers another.

    Attributes:
        structure: of structure fingerprints, no unit.
        composition: of scaled composition fingerprints, in standard deviations.
    """

    structure: float
    composition: float


CUT_OFFS = {"perov_5": CutOffs(0.2, 4.0), "carbon_24": CutOffs(0.2, 4.0), "mp_20": CutOffs(0.4, 10.0)}
"""The paper's, by data set."""


@dataclass(frozen=True, slots=True)
class Described:
    """What is measured of one crystal; see the module.

    Attributes:
        composition_valid: whether its composition passes the SMACT test.
        structure_valid: whether cell, volume and distances are those of a crystal.
        density: g/cm^3; None where there is no crystal.
        n_elements: number of elements; None likewise.
        structure: fingerprint of the structure; None where it has none.
        composition: fingerprint of the composition, not scaled; None likewise.
        reason: what is wrong, or why a fingerprint is missing; "" for nothing.
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
        """Both validities."""
        return self.composition_valid and self.structure_valid

    @property
    def readable(self) -> bool:
        """Whether it has both fingerprints."""
        return self.structure is not None and self.composition is not None


@dataclass(frozen=True, slots=True)
class UnconditionalResult:
    """Scores of crystals that were written without a prompt; see the module. NaN: nothing to measure.

    Attributes:
        n_generated: N, the denominator of the validities.
        n_readable: R, generated crystals with fingerprints.
        n_true: M.
        n_true_readable: Q, true crystals with fingerprints.
        n_drawn: valid crystals whose densities and numbers of elements were compared.
        composition_validity: share of N, 0 to 1.
        structure_validity: share of N.
        validity: share of N for which both hold.
        coverage_recall: share of Q.
        coverage_precision: share of R, as the paper.
        coverage_precision_of_all: share of N.
        structure_distance_recall: mean of S_j, no unit.
        structure_distance_precision: mean of S'_i.
        composition_distance_recall: mean of C_j, standard deviations.
        composition_distance_precision: mean of C'_i.
        wasserstein_density: g/cm^3.
        wasserstein_elements: of the number of elements.
        reasons: for each generated crystal what is wrong with it, "" for nothing.
    """

    n_generated: int
    n_readable: int
    n_true: int
    n_true_readable: int
    n_drawn: int
    composition_validity: float
    structure_validity: float
    validity: float
    coverage_recall: float
    coverage_precision: float
    coverage_precision_of_all: float
    structure_distance_recall: float
    structure_distance_precision: float
    composition_distance_recall: float
    composition_distance_precision: float
    wasserstein_density: float
    wasserstein_elements: float
    reasons: tuple[str, ...]


def evaluate(
    generated: Sequence[Sample],
    truths: Sequence[Sample],
    cut_offs: CutOffs,
    *,
    n: int = 1000,
    seed: int = 0,
    workers: int = 1,
    seconds: float = 120.0,
    memory_gb: float = 4.0,
    on_done: Callable[[int], None] | None = None,
) -> UnconditionalResult:
    """Validity, coverage and Wasserstein distances of generated crystals.

    Args:
        generated: structures, CIFs, standard texts, or None for what is no crystal.
        truths: the test set, likewise.
        cut_offs: for coverage; the paper's are in CUT_OFFS.
        n: valid crystals drawn for the Wasserstein distances.
        seed: of the draw.
        workers: processes at a time, each of which can be lost.
        seconds: limit for one crystal.
        memory_gb: limit for one process, GiB.
        on_done: called with the index of each described crystal after it, from a worker's thread.

    Raises:
        InputError: nothing generated, no truth, or an n below 1.
        CrystallmError: matminer or SMACT is not installed, or no worker could be started.
    """
    _check(len(generated), len(truths), n)
    found = describe(
        [*generated, *truths], workers=workers, seconds=seconds, memory_gb=memory_gb, on_done=on_done
    )
    return score(found[: len(generated)], found[len(generated) :], cut_offs, n=n, seed=seed)


def describe(
    samples: Sequence[Sample],
    *,
    workers: int = 1,
    seconds: float = 120.0,
    memory_gb: float = 4.0,
    on_done: Callable[[int], None] | None = None,
) -> list[Described]:
    """Validities, fingerprints and properties of crystals, in worker processes; arguments as `evaluate`.

    What is identical is described once. A crystal whose fingerprint costs its process is judged without one.

    Raises:
        CrystallmError: as `evaluate`.
    """
    for module in ("smact", "matminer"):
        if find_spec(module) is None:
            raise CrystallmError(f"this benchmark needs {module}: {install('bench')}")
    keys = [None if sample is None else json.dumps(conversion.pack(sample)) for sample in samples]
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    function = "crystallm.benchmarks.unconditional:describe_record"
    limits: dict[str, Any] = {"workers": workers, "seconds": seconds, "memory_gb": memory_gb}
    tasks = [{"sample": key, "fingerprints": True} for key in distinct]
    found = dict(zip(distinct, mapping.run(function, tasks, on_done=on_done, **limits), strict=True))
    lost = {key: answer.reason for key, answer in found.items() if isinstance(answer, execution_tasks.Lost)}
    again = mapping.run(function, [{"sample": key, "fingerprints": False} for key in lost], **limits)
    for (key, reason), answer in zip(lost.items(), again, strict=True):
        bare = {} if isinstance(answer, execution_tasks.Lost) else answer
        found[key] = bare | {"reason": f"no fingerprint: {reason}"}
    return [Described(reason="no crystal") if key is None else from_record(found[key]) for key in keys]


def describe_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one packed crystal, for a worker process; see `Described`."""
    record = json.loads(task["sample"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen and matminer warn of each radius and property they lack
        try:
            crystal = conversion.unpack(record)
        except CrystallmError as error:
            counts = _counts_of_rows(record["text"]) if "text" in record else ()
            passes = bool(counts) and composition_tests.passes_smact(counts)
            return {"composition_valid": passes, "reason": f"no crystal: {error}"}
        unsound = _unsound(crystal)
        ordered = crystal.is_ordered
        counts = tuple(sorted(crystal.composition.get_el_amt_dict().items()))
        passes = ordered and composition_tests.passes_smact(counts)
        reason = unsound or ("" if passes else "its composition fails the SMACT test")
        answer: dict[str, Any] = {
            "composition_valid": passes,
            "structure_valid": not unsound,
            "density": float(crystal.density),
            "n_elements": len(crystal.composition),
            "reason": reason,
        }
        if task["fingerprints"] and ordered and composition_tests.is_sensible(crystal):
            _featurizers()  # a broken installation is no fault of the crystal
            try:
                answer |= _fingerprints(crystal)
            except Exception as error:  # noqa: BLE001 - Voronoi tessellations fail in many ways; the reason says it
                why = " ".join(str(error).split())[:120] or type(error).__name__
                answer["reason"] = reason or f"no fingerprint: {why}"
    return answer


def from_record(record: Mapping[str, Any]) -> Described:
    """What a record of `describe_record` says."""
    prints = {name: tuple(record[name]) for name in ("structure", "composition") if record.get(name)}
    return Described(**{**record, **prints})


def score(
    generated: Sequence[Described],
    truths: Sequence[Described],
    cut_offs: CutOffs,
    *,
    n: int = 1000,
    seed: int = 0,
) -> UnconditionalResult:
    """The scores that follow from what was measured of each crystal; arguments as `evaluate`.

    The order of the crystals changes nothing: what is drawn by chance is drawn from sorted values.

    Raises:
        InputError: as `evaluate`.
    """
    import numpy as np

    _check(len(generated), len(truths), n)
    to_true, to_generated = _distances(
        [g for g in generated if g.readable], [t for t in truths if t.readable]
    )
    covering = _covered(to_true, cut_offs)
    covered = _covered(to_generated, cut_offs)
    valid = sorted(_properties([g for g in generated if g.valid]))
    if len(valid) > n:
        chosen = np.random.default_rng(seed).choice(len(valid), size=n, replace=False)
        valid = [valid[i] for i in chosen]
    true = _properties(truths)
    total = len(generated)
    return UnconditionalResult(
        n_generated=total,
        n_readable=len(covering),
        n_true=len(truths),
        n_true_readable=len(covered),
        n_drawn=len(valid),
        composition_validity=sum(g.composition_valid for g in generated) / total,
        structure_validity=sum(g.structure_valid for g in generated) / total,
        validity=sum(g.valid for g in generated) / total,
        coverage_recall=_mean(covered),
        coverage_precision=_mean(covering),
        coverage_precision_of_all=sum(covering) / total,
        structure_distance_recall=_mean(to_generated[0]),
        structure_distance_precision=_mean(to_true[0]),
        composition_distance_recall=_mean(to_generated[1]),
        composition_distance_precision=_mean(to_true[1]),
        wasserstein_density=_wasserstein([x for x, _ in valid], [x for x, _ in true]),
        wasserstein_elements=_wasserstein([k for _, k in valid], [k for _, k in true]),
        reasons=tuple(g.reason for g in generated),
    )


def _check(n_generated: int, n_true: int, n: int) -> None:
    if not n_generated or not n_true:
        raise InputError(f"{n_generated} generated and {n_true} true crystals: give at least one of each")
    if n < 1:
        raise InputError(f"n = {n}: the valid crystals that are drawn start at 1")


# -- one crystal ---------------------------------------------------------------------------------------------


def _unsound(crystal: Structure) -> str:
    """Why a structure is not valid; "" if it is."""
    if not composition_tests.is_sensible(crystal):
        return "its cell is not sensible"
    if not crystal.is_ordered:
        return "its sites are shared"
    if crystal.volume < composition_tests.SMALLEST:
        return f"its volume is {crystal.volume:.2g} Å^3"
    return composition_tests.overlap(crystal)


def _counts_of_rows(text: str) -> tuple[tuple[str, float], ...]:
    """Elements and numbers of atoms by the rows of a CIF whose atoms overlap; () if it is broken further."""
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
    whole = all(count == round(count) > 0 for count in counts.values())
    return tuple(sorted(counts.items())) if whole else ()


def _fingerprints(crystal: Structure) -> dict[str, list[float]]:
    """Both fingerprints of an ordered crystal.

    Raises:
        CrystallmError: an element has no Magpie values.
        Exception: whatever CrystalNN makes of atoms that overlap.
    """
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
    """Published means and standard deviations of the 132 Magpie features, each [132]."""
    import numpy as np

    known = json.loads((resources.files("crystallm") / "data" / "magpie_scaler.json").read_text("utf-8"))
    return np.array(known["means"]), np.array(known["stds"])


def _distances(
    generated: Sequence[Described], truths: Sequence[Described]
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Distances to the nearest, by structure and by composition.

    Returns:
        Of each readable generated crystal ([R] each) from the true ones, and of each readable true one ([Q]
        each) from the generated ones; infinite where there is nothing to be near to.
    """
    import numpy as np
    from scipy.spatial.distance import cdist  # type: ignore[import-untyped]

    to_true = [np.full(len(generated), np.inf) for _ in range(2)]
    to_generated = [np.full(len(truths), np.inf) for _ in range(2)]
    if generated and truths:
        for k, name in enumerate(("structure", "composition")):
            mine, theirs = (np.array([getattr(x, name) for x in some]) for some in (generated, truths))
            if name == "composition":
                means, deviations = scaler()
                mine, theirs = ((x - means) / deviations for x in (mine, theirs))
            for start in range(0, len(mine), BLOCK):
                block = cdist(mine[start : start + BLOCK], theirs)  # [BLOCK, Q]
                to_true[k][start : start + BLOCK] = block.min(axis=1)
                to_generated[k] = np.minimum(to_generated[k], block.min(axis=0))
    return (to_true[0], to_true[1]), (to_generated[0], to_generated[1])


def _covered(nearest: tuple[Floats, Floats], cut_offs: CutOffs) -> list[bool]:
    structure, composition = nearest
    near = (structure <= cut_offs.structure) & (composition <= cut_offs.composition)
    return [bool(x) for x in near]


def _properties(crystals: Sequence[Described]) -> list[tuple[float, int]]:
    """Density (g/cm^3) and number of elements of those that are crystals."""
    return [(c.density, c.n_elements) for c in crystals if c.density is not None and c.n_elements is not None]


def _mean(values: Sequence[float] | Floats) -> float:
    """The mean; NaN of nothing, and of what is infinitely far."""
    found = math.fsum(values) / len(values) if len(values) else math.nan
    return found if math.isfinite(found) else math.nan


def _wasserstein(mine: Sequence[float], theirs: Sequence[float]) -> float:
    from scipy.stats import wasserstein_distance  # type: ignore[import-untyped]

    return float(wasserstein_distance(mine, theirs)) if mine and theirs else math.nan
