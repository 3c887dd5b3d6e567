"""Requested values of a property against those of the crystals, and against crystals sampled without.

Spearman's rank correlation is over all crystals with a value. Its interval holds 95 % of the values of 2,000
bootstrap resamples. Where a crystal is requested with several multiples of its value, `within` is the
correlation of

    requested / mean requested of the entry    with    found / mean found of the entry

which the composition alone cannot explain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

RESAMPLES = 2000
PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class PropertyScore:
    """How well one property is followed.

    Attributes:
        n: number of samples.
        n_found: of these, those with a value.
        spearman: of requested and found values; NaN for fewer than three.
        interval: of `spearman`.
        mae: mean absolute error, in the unit of the property.
        plain_spearman: of requested values and those of crystals sampled without the condition.
        plain_mae: of these.
        within: see the module; NaN where each entry has one requested value.
        quantiles: 10th, 50th and 90th percentile of `requested`, `found` and `plain` values.
    """

    name: str
    unit: str
    n: int
    n_found: int
    spearman: float
    interval: tuple[float, float]
    mae: float
    plain_spearman: float
    plain_mae: float
    within: float
    quantiles: dict[str, tuple[float, ...]]


def spearman(one: Values, other: Values) -> float:
    """Return the rank correlation of two arrays [n]; NaN for fewer than three values, or equal ones."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Values) -> Values:
    """Return the ranks of values [n] from 1; equal values have the mean of theirs."""
    _, member, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - (counts - 1) / 2)[member]
    return ranks


def interval(one: Values, other: Values) -> tuple[float, float]:
    """Return the bootstrap interval of the rank correlation."""
    if math.isnan(spearman(one, other)):
        return math.nan, math.nan
    rows = np.random.default_rng(0).integers(len(one), size=(RESAMPLES, len(one)))
    low, high = np.nanpercentile([spearman(one[row], other[row]) for row in rows], (2.5, 97.5))
    return float(low), float(high)


def score(
    name: str,
    unit: str,
    entries: Sequence[int],
    requested: Sequence[float],
    *,
    found: Sequence[float | None],
    plain: Sequence[float | None],
) -> PropertyScore:
    """Return the scores of a property.

    Args:
        name: of the property.
        unit: of its values.
        entries: number of the entry of each sample.
        requested: value of each sample.
        found: value of each crystal sampled with the condition; None for none.
        plain: the same without the condition.
    """
    given = np.array(requested, dtype=np.float64)
    with_it, without = (
        np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        for values in (found, plain)
    )
    known, plain_known = ~np.isnan(with_it), ~np.isnan(without)
    shown = {"requested": given, "found": with_it[known], "plain": without[plain_known]}
    return PropertyScore(
        name,
        unit,
        n=len(given),
        n_found=int(known.sum()),
        spearman=spearman(given[known], with_it[known]),
        interval=interval(given[known], with_it[known]),
        mae=_mean_error(given[known], with_it[known]),
        plain_spearman=spearman(given[plain_known], without[plain_known]),
        plain_mae=_mean_error(given[plain_known], without[plain_known]),
        within=_within(np.array(entries)[known], given[known], with_it[known]),
        quantiles={key: _quantiles(values) for key, values in shown.items()},
    )


def _mean_error(one: Values, other: Values) -> float:
    return float(np.abs(one - other).mean()) if len(one) else math.nan


def _quantiles(values: Values) -> tuple[float, ...]:
    return tuple(np.percentile(values, PERCENTILES).tolist()) if len(values) else ()


def _within(entries: Any, given: Values, found: Values) -> float:
    """Return the correlation of deviations from the means of the entries with several requested values."""
    shares: list[tuple[float, float]] = []
    for entry in np.unique(entries):
        mine = entries == entry
        if np.unique(given[mine]).size < 2:
            continue
        means = given[mine].mean(), found[mine].mean()
        if 0 in means:
            continue
        shares += zip((given[mine] / means[0]).tolist(), (found[mine] / means[1]).tolist(), strict=True)
    return spearman(*np.array(shares).T) if shares else math.nan
