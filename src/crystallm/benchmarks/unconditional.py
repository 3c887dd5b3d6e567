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

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crystallm.benchmarks.fingerprints import BLOCK, describe, scaler
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymatgen.core import Structure

    from crystallm.benchmarks.fingerprints import Described
    from crystallm.crystallography.space_groups import Floats

    Sample = Structure | str | None


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
