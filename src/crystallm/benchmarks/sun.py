"""S.U.N.: share of generated crystals that are stable, unique and novel, with intervals.

Of N generated crystals, unreadable ones included, let e be the energy above the hull of known phases
(eV/atom). Unique and novel are those of `novelty` for the crystals whose energies were computed: relaxed, if
requested.

    stable       e <= 0          S.U.N.     stable, unique and novel
    metastable   e <= b          M.S.U.N.   metastable, unique and novel        b = 0.1 eV/atom

all over N, both bounds to within 1e-6 eV/atom. A crystal without energy, or with an element that the hull
lacks, is neither stable nor metastable. Papers use different names, which changes values several times over:

- MatterGen (Zeni et al., Nature 639, 624, 2025) calls stable what is metastable here: after relaxing,
  e <= 0.1 eV/atom above a hull of Materials Project, Alexandria and ICSD. Its S.U.N. is M.S.U.N. here; so is
  that of OMatG (Höllmer et al., arXiv 2502.02582).
- FlowMM (Miller et al., arXiv 2406.04713) calls stable what is below 0: its S.U.N. is S.U.N. here.
- LeMat-GenBench (Betala et al., arXiv 2512.04562) has both bounds, e <= 0 and e <= 0.1; in its code those of
  M.S.U.N. are the metastable ones that are not stable: M.S.U.N. minus S.U.N. here.

MatterGen compares by pymatgen's StructureMatcher with the same tolerances; its default also ignores disorder
(elements of similar size and electronegativity count as one), so that fewer crystals are unique and novel
than here. Novelty refers only to the given reference structures.

Intervals of shares are Wilson's, as a bootstrap of zero successes has no width. Those of means and medians
hold 95 % of the values over 2,000 bootstrap resamples. Both take the result of each crystal as fixed: they do
not include that a larger sample has more duplicates.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks import novelty
from crystallm.benchmarks.metrics import RESAMPLES, WITHIN
from crystallm.storage.files import without_nan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

COLUMNS = {
    "energy": "float64",
    "energy_before": "float64",
    "e_above_hull": "float64",
    "converged": "bool",
    "rmsd": "float64",
    "energy_reason": "string",
    "unique": "bool",
    "novel": "bool",
    "repeats": "string",
    "known": "string",
    "compare_reason": "string",
    "relaxed_cif": "string",
}
"""Additional columns of a checked crystal, with pyarrow types. Energies in eV per atom, `rmsd` in Å; see
`thermodynamics.collection_energies` and `novelty.NoveltyCheck`. Null: not requested, or see the reasons."""
BOUND = 0.1
"""Maximum energy above the hull of a metastable crystal, eV/atom."""


@dataclass(frozen=True, slots=True)
class Share:
    """Number of crystals, their share from 0 to 1, and its interval."""

    count: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and a mean over n crystals, with intervals; NaN over none."""

    n: int
    median: float
    median_interval: tuple[float, float]
    mean: float
    mean_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sun:
    """Shares and energies of N crystals.

    Attributes:
        n: N.
        bound: b, eV/atom.
        shares: by name, as requested: `with_energy`, `converged` (relaxation converged),
            `placed` (with an energy above the hull), `stable`, `metastable`, `unique`, `novel`, `sun`,
            `msun`.
        e_above_hull: eV/atom; None without a hull.
        rmsd: Å; None without relaxation.
        reasons: why crystals have no energy, none above the hull, or were not compared, with counts, the most
            frequent first.
    """

    n: int
    bound: float
    shares: dict[str, Share]
    e_above_hull: Spread | None
    rmsd: Spread | None
    reasons: dict[str, int]

    def record(self) -> dict[str, Any]:
        """Return plain values, None for NaN."""
        values: dict[str, Any] = without_nan(asdict(self))
        return values


def compare(
    rows: Sequence[Mapping[str, Any]],
    texts: Iterable[str | None],
    known: Sequence[str] | None,
    *,
    workers: int = 1,
    on_done: Callable[[str, int, int], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Determine which crystals are unique and novel.

    Args:
        rows: of the crystals, with validity and energies.
        texts: of the generated crystals, one per row; None for unreadable ones.
        known: folders or files of reference structures; None: novelty is not determined.

    Returns:
        The rows with the results; numbers of reference structures (`n_known`), of those that share a formula
        with a generated crystal (`n_compared`), and of unreadable ones (`n_unreadable`).
    """
    samples = [row["relaxed_cif"] or text for row, text in zip(rows, texts, strict=True)]
    result = novelty.evaluate(
        samples,
        () if known is None else novelty.read_known(known),
        valid=[bool(row["valid"]) for row in rows],
        workers=workers,
        on_done=on_done,
    )
    compared = [
        {
            **row,
            "unique": check.unique,
            "novel": None if known is None else check.novel,
            "repeats": None if check.repeats is None else rows[check.repeats]["id"],
            "known": check.known,
            "compare_reason": check.reason or None,
        }
        for row, check in zip(rows, result.crystals, strict=True)
    ]
    counts = {name: getattr(result, name) for name in ("n_known", "n_compared", "n_unreadable")}
    return compared, {} if known is None else counts


def summarise(
    rows: Sequence[Mapping[str, Any]], *, bound: float = BOUND, energies: bool, relaxed: bool, hull: bool,
    known: bool,
) -> Sun:  # fmt: skip
    """Summarize rows with COLUMNS.

    Args:
        bound: b, eV/atom.
    """

    def below(row: Mapping[str, Any], limit: float) -> bool:
        return novelty.is_within(row["e_above_hull"], limit)

    def new(row: Mapping[str, Any]) -> bool:
        return bool(row["unique"] and row["novel"])

    tests: dict[str, tuple[bool, Callable[[Mapping[str, Any]], bool]]] = {
        "with_energy": (energies, lambda row: row["energy"] is not None),
        "converged": (relaxed, lambda row: bool(row["converged"])),
        "placed": (hull, lambda row: row["e_above_hull"] is not None),
        "stable": (hull, lambda row: below(row, novelty.STABLE)),
        "metastable": (hull, lambda row: below(row, bound)),
        "unique": (True, lambda row: bool(row["unique"])),
        "novel": (known, lambda row: bool(row["novel"])),
        "sun": (hull and known, lambda row: below(row, novelty.STABLE) and new(row)),
        "msun": (hull and known, lambda row: below(row, bound) and new(row)),
    }
    reasons = Counter(
        reason for row in rows for reason in {row["energy_reason"], row["compare_reason"]} if reason
    )
    return Sun(
        n=len(rows),
        bound=bound,
        shares={
            name: share(sum(map(test, rows)), len(rows))
            for name, (requested, test) in tests.items()
            if requested
        },
        e_above_hull=spread([row["e_above_hull"] for row in rows]) if hull else None,
        rmsd=spread([row["rmsd"] for row in rows]) if relaxed else None,
        reasons=dict(reasons.most_common(10)),
    )


def share(count: int, n: int) -> Share:
    """Return a share of n >= 1 with Wilson's interval of 95 %."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(count, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Share(count, count / n, float(interval.low), float(interval.high))


def spread(values: Sequence[float | None]) -> Spread:
    """Return median and mean of the values that are not None, with bootstrap intervals."""
    import numpy as np

    given: NDArray[np.float64] = np.sort([value for value in values if value is not None])
    undefined = (math.nan, math.nan)
    if not len(given):
        return Spread(0, math.nan, undefined, math.nan, undefined)
    rng = np.random.default_rng(0)
    medians, means = [], []
    for _ in range(RESAMPLES):  # one at a time: all together would take 2,000 times the memory
        resample = given[rng.integers(len(given), size=len(given))]
        medians.append(float(np.median(resample)))
        means.append(float(resample.mean()))
    return Spread(
        n=len(given),
        median=float(np.median(given)),
        median_interval=_interval(medians),
        mean=float(given.mean()),
        mean_interval=_interval(means),
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.percentile(values, WITHIN)
    return float(low), float(high)
