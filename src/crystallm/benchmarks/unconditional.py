"""Unconditional generation against a test set: validity, coverage and property distributions.

CDVAE's task, as in the CrystaLLM paper. For N generated crystals G_i and M reference structures T_j:

- composition validity: the share of all N whose composition passes the SMACT test
  (`validity.composition_tests.passes_smact`). If atoms of a CIF overlap, so that no structure can be built,
  its atom rows give the composition.
- structure validity: the share of all N whose cell is plausible (lengths in [0.5, 1000] Å, angles in
  [10, 170] degrees), with a volume of at least 0.1 Å^3 and no two atoms closer than 0.5 Å.
- fingerprints: s = mean over the atoms of CrystalNN's `ops` site fingerprint; c = (Magpie composition
  fingerprint - mean) / standard deviation, with the published means and standard deviations. A crystal is
  readable if its cell is plausible and it has both: R generated crystals and Q references.
- distances: with the Euclidean distance d and independent minima,

      S_j = min_i d(s(G_i), s(T_j)),  C_j = min_i d(c(G_i), c(T_j))    for references, i over readable G
      S'_i = min_j d(s(G_i), s(T_j)), C'_i = min_j d(c(G_i), c(T_j))   for generated ones, j over readable T

- coverage recall: #{j: S_j <= cut-off and C_j <= cut-off} / Q.
- coverage precision: #{i: S'_i <= cut-off and C'_i <= cut-off} / R as in the paper, which ignores unreadable
  crystals, and / N.
- Wasserstein distance: of the densities (g/cm^3) and numbers of elements of n valid crystals (both
validities;
  all if there are fewer) from those of all references.

matminer 0.10 and SMACT 4 give the results of matminer 0.9 and SMACT 2.5.5, with one difference: helium, neon
and argon lack Magpie values, which matminer now replaces by means; here, crystals with them have no
fingerprint.
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

    from crystallm.benchmarks.fingerprints import CrystalDescription
    from crystallm.crystallography.space_groups import Floats

    Sample = Structure | str | None


@dataclass(frozen=True, slots=True)
class CutOffs:
    """Maximum distances at which one crystal covers another.

    Attributes:
        structure: of structure fingerprints, dimensionless.
        composition: of scaled composition fingerprints, in standard deviations.
    """

    structure: float
    composition: float


CUT_OFFS = {"perov_5": CutOffs(0.2, 4.0), "carbon_24": CutOffs(0.2, 4.0), "mp_20": CutOffs(0.4, 10.0)}
"""Cut-offs of the paper, by data set."""


@dataclass(frozen=True, slots=True)
class UnconditionalResult:
    """Scores of unconditional generation; see the module. NaN if undefined.

    Attributes:
        n_generated: N, the denominator of the validities.
        n_readable: R, generated crystals with fingerprints.
        n_true: M.
        n_true_readable: Q, references with fingerprints.
        n_drawn: number of valid crystals in the Wasserstein distances.
        composition_validity: share of N, 0 to 1.
        structure_validity: share of N.
        validity: share of N for which both hold.
        coverage_recall: share of Q.
        coverage_precision: share of R, as in the paper.
        coverage_precision_of_all: share of N.
        structure_distance_recall: mean of S_j, dimensionless.
        structure_distance_precision: mean of S'_i.
        composition_distance_recall: mean of C_j, standard deviations.
        composition_distance_precision: mean of C'_i.
        wasserstein_density: g/cm^3.
        wasserstein_elements: of the number of elements.
        reasons: for each generated crystal, why it is not valid or readable; "" if it is.
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
    on_done: Callable[[int], None] | None = None,
) -> UnconditionalResult:
    """Compute validity, coverage and Wasserstein distances of generated crystals.

    Args:
        generated: structures, CIFs, standard texts, or None for a sample that is not a crystal.
        truths: reference structures of the test set, likewise.
        cut_offs: of coverage; those of the paper are in CUT_OFFS.
        n: number of valid crystals drawn for the Wasserstein distances.
        on_done: called with the index of each described crystal after it, from a worker's thread.

    Raises:
        InputError: no generated crystal, no reference, or an n below 1.
        CrystallmError: matminer or SMACT is not installed, or no worker could be started.
    """
    _check(len(generated), len(truths), n)
    described = describe([*generated, *truths], workers=workers, seconds=seconds, on_done=on_done)
    n_generated = len(generated)
    return score(described[:n_generated], described[n_generated:], cut_offs, n=n, seed=seed)


def score(
    generated: Sequence[CrystalDescription],
    truths: Sequence[CrystalDescription],
    cut_offs: CutOffs,
    *,
    n: int = 1000,
    seed: int = 0,
) -> UnconditionalResult:
    """Compute the scores from the descriptions of all crystals; arguments as for `evaluate`.

    Does not depend on the order of the crystals: random draws are from sorted values.
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
        raise InputError(f"n = {n}: write a whole number of valid crystals from 1")


def _distances(
    generated: Sequence[CrystalDescription], truths: Sequence[CrystalDescription]
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Compute distances to the nearest crystal, by structure and by composition.

    Returns:
        Distances of the readable generated crystals from the references ([R] each), and of the readable
        references from the generated crystals ([Q] each); infinite if the other set is empty.
    """
    import numpy as np
    from scipy.spatial.distance import cdist  # type: ignore[import-untyped]

    to_true = [np.full(len(generated), np.inf) for _ in range(2)]
    to_generated = [np.full(len(truths), np.inf) for _ in range(2)]
    if generated and truths:
        for k, name in enumerate(("structure", "composition")):
            own, true = (np.array([getattr(x, name) for x in crystals]) for crystals in (generated, truths))
            if name == "composition":
                means, deviations = scaler()
                own, true = ((x - means) / deviations for x in (own, true))
            for start in range(0, len(own), BLOCK):
                block = cdist(own[start : start + BLOCK], true)  # [BLOCK, Q]
                to_true[k][start : start + BLOCK] = block.min(axis=1)
                to_generated[k] = np.minimum(to_generated[k], block.min(axis=0))
    return (to_true[0], to_true[1]), (to_generated[0], to_generated[1])


def _covered(nearest: tuple[Floats, Floats], cut_offs: CutOffs) -> list[bool]:
    structure, composition = nearest
    near = (structure <= cut_offs.structure) & (composition <= cut_offs.composition)
    return [bool(x) for x in near]


def _properties(crystals: Sequence[CrystalDescription]) -> list[tuple[float, int]]:
    """Return density (g/cm^3) and number of elements of each crystal that has them."""
    return [(c.density, c.n_elements) for c in crystals if c.density is not None and c.n_elements is not None]


def _mean(values: Sequence[float] | Floats) -> float:
    """Return the mean; NaN if it is empty or infinite."""
    mean = math.fsum(values) / len(values) if len(values) else math.nan
    return mean if math.isfinite(mean) else math.nan


def _wasserstein(own: Sequence[float], true: Sequence[float]) -> float:
    from scipy.stats import wasserstein_distance  # type: ignore[import-untyped]

    return float(wasserstein_distance(own, true)) if own and true else math.nan
