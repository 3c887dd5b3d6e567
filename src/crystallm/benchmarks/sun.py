"""S.U.N.: how many generated crystals are stable, unique and novel at once, and how sure that is.

Of N generated crystals, those that cannot be read too, let e be the energy above the hull of known phases
(eV/atom), and unique and novel what `novelty` says of the crystals as they were weighed: relaxed, if that was
asked for.

    stable       e <= 0          S.U.N.     stable, unique and novel
    metastable   e <= b          M.S.U.N.   metastable, unique and novel        b = 0.1 eV/atom

all over N. What has no energy, or lacks an element in the hull, is neither stable nor metastable. Papers name
these differently, which changes figures several times over:

- MatterGen (Zeni et al., Nature 639, 624, 2025) calls stable what is metastable here: after relaxing,
  e <= 0.1 eV/atom above a hull of Materials Project, Alexandria and ICSD. Its S.U.N. is M.S.U.N. here; so is
  that of OMatG (Höllmer et al., arXiv 2502.02582).
- FlowMM (Miller et al., arXiv 2406.04713) calls stable what is below 0: its S.U.N. is S.U.N. here.
- LeMat-GenBench (Betala et al., arXiv 2512.04562) has both bounds, e <= 0 and e <= 0.1; in its code those of
  M.S.U.N. are the metastable ones that are not stable: M.S.U.N. minus S.U.N. here.

MatterGen compares by pymatgen's StructureMatcher with the tolerances of `equals`; its default looks through
disorder, too (elements of like size and electronegativity count as one), which makes fewer crystals unique
and novel than here. Novelty is against the known set that is given, and no other.

Intervals of shares are Wilson's, since a bootstrap of none of N says nothing of what it might have been;
those of means and medians hold 95 % of the values over 2,000 bootstrap resamples. Both take each crystal's
verdict as it is: that more crystals would repeat each other more often is not in them.

Refuses to know structures, and where energies come from.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks import novelty
from crystallm.benchmarks.metrics import RESAMPLES, WITHIN

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
"""Columns that a judged crystal has besides, with their pyarrow types. Energies in eV per atom, `rmsd` in Å;
see `energy.weighed` and `novelty.Verdict`. Null: not asked for, or not to be had; the reasons say why."""
BOUND = 0.1
"""eV/atom above the hull, up to which a crystal is metastable."""
ROUNDING = 1e-6
"""eV/atom: what is on the hull comes out some 1e-16 above it, or below."""
Z = 1.959964
"""Of a normal distribution, 95 % lie within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of all crystals, as a share from 0 to 1, and the interval that holds it."""

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
    """What energies and comparisons of N crystals add up to.

    Attributes:
        n: N.
        bound: b, eV/atom.
        shares: by name, as far as they were asked for: `weighed` (with an energy), `converged` (relaxed to
            the end), `placed` (with an energy above the hull), `stable`, `metastable`, `unique`, `novel`,
            `sun`, `msun`.
        e_above_hull: eV/atom; None where no hull was given.
        rmsd: Å; None where nothing was relaxed.
        reasons: why crystals have no energy, or none above the hull, or were not compared, the most frequent
            first, and how often.
    """

    n: int
    bound: float
    shares: dict[str, Share]
    e_above_hull: Spread | None
    rmsd: Spread | None
    reasons: dict[str, int]

    def record(self) -> dict[str, Any]:
        """The same as plain values; None for NaN."""
        found: dict[str, Any] = _without_nan(asdict(self))
        return found


def compare(
    rows: Sequence[Mapping[str, Any]],
    texts: Iterable[str | None],
    known: Sequence[str] | None,
    *,
    workers: int = 1,
    on_done: Callable[[str, int, int], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Tell which crystals are unique, and which are novel.

    Args:
        rows: of the crystals, judged and weighed.
        texts: of the crystals as written, one a row; None for what could not be read.
        known: folders or files of known crystals; None: none are given, and nothing is novel or known.
        workers: processes at a time.
        on_done: as for `novelty.evaluate`.

    Returns:
        The rows with what was found; how many known crystals there are (`n_known`), how many of them share a
        formula with a generated one (`n_compared`), and how many could not be read (`n_unreadable`).

    Raises:
        InputError, CrystallmError: as `novelty.evaluate` and `novelty.read_known`.
    """
    samples = [row["relaxed_cif"] or text for row, text in zip(rows, texts, strict=True)]
    result = novelty.evaluate(
        samples,
        () if known is None else novelty.read_known(known),
        valid=[bool(row["valid"]) for row in rows],
        workers=workers,
        on_done=on_done,
    )
    found = [
        {
            **row,
            "unique": verdict.unique,
            "novel": None if known is None else verdict.novel,
            "repeats": None if verdict.repeats is None else rows[verdict.repeats]["id"],
            "known": verdict.known,
            "compare_reason": verdict.reason or None,
        }
        for row, verdict in zip(rows, result.crystals, strict=True)
    ]
    counts = {name: getattr(result, name) for name in ("n_known", "n_compared", "n_unreadable")}
    return found, {} if known is None else counts


def summarise(
    rows: Sequence[Mapping[str, Any]], *, bound: float = BOUND, energies: bool, relaxed: bool, hull: bool,
    known: bool,
) -> Sun:  # fmt: skip
    """Add up rows with COLUMNS.

    Args:
        rows: of all crystals, at least one.
        bound: b, eV/atom.
        energies: whether crystals were weighed.
        relaxed: whether they were relaxed.
        hull: whether energies above a hull were asked for.
        known: whether a known set was given.
    """

    def below(row: Mapping[str, Any], most: float) -> bool:
        return row["e_above_hull"] is not None and row["e_above_hull"] <= most + ROUNDING

    def new(row: Mapping[str, Any]) -> bool:
        return bool(row["unique"] and row["novel"])

    tests: dict[str, tuple[bool, Callable[[Mapping[str, Any]], bool]]] = {
        "weighed": (energies, lambda row: row["energy"] is not None),
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
            name: share(sum(map(test, rows)), len(rows)) for name, (asked, test) in tests.items() if asked
        },
        e_above_hull=spread([row["e_above_hull"] for row in rows]) if hull else None,
        rmsd=spread([row["rmsd"] for row in rows]) if relaxed else None,
        reasons=dict(reasons.most_common(10)),
    )


def share(count: int, n: int) -> Share:
    """A share of n >= 1 with Wilson's interval.

    With p = k / n and z = 1.96, (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n).
    """
    p = count / n
    middle = p + Z * Z / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    low, high = (middle - half) / scale, (middle + half) / scale
    return Share(count, p, 0.0 if count == 0 else low, 1.0 if count == n else high)


def spread(values: Sequence[float | None]) -> Spread:
    """Median and mean of the values that are there."""
    import numpy as np

    there: NDArray[np.float64] = np.sort([value for value in values if value is not None])
    nothing = (math.nan, math.nan)
    if not len(there):
        return Spread(0, math.nan, nothing, math.nan, nothing)
    rng = np.random.default_rng(0)
    medians, means = [], []
    for _ in range(RESAMPLES):  # one at a time: together they are 2,000 times as many values
        drawn = there[rng.integers(len(there), size=len(there))]
        medians.append(float(np.median(drawn)))
        means.append(float(drawn.mean()))
    return Spread(
        n=len(there),
        median=float(np.median(there)),
        median_interval=_within(medians),
        mean=float(there.mean()),
        mean_interval=_within(means),
    )


def _within(values: Sequence[float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.percentile(values, WITHIN)
    return float(low), float(high)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
