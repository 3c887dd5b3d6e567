"""Match rates and errors from distances between samples and reference structures, with intervals.

For entry i and sample j, r_ij is the normalized rms distance of `csp`, if they match.

- match rate at n: the share of ALL entries with some r_ij, j <= n. RMSE at n: the mean over those entries of
  min_{j <= n} r_ij.
- One of n: a single sample out of n, chosen without the reference structure.
- METRe at n (arXiv 2509.12178): the share of reference structures that match any of the first n samples of
any
  entry of their formula: a model should generate all polymorphs in the set. cRMSE: the mean over all
  reference structures of their smallest distance, with `stol` = 0.5 for those without a match, so that a
  model cannot improve by matching less.

Intervals hold 95 % of the values over 2,000 bootstrap resamples of the entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

RESAMPLES, CHUNK = 2000, 100
WITHIN = (2.5, 97.5)
"""Percentiles of an interval."""
NO_MATCH = 0.5
"""Distance of a reference structure without a match in cRMSE: the matcher's `stol`."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a benchmark's table.

    Attributes:
        name: samples counted: `as the paper`, `all samples`, `valid samples`, `by agreement`, ...
        match_rate: 0 to 1.
        rmse: NaN without matches.
        rmse_interval: NaN without matches.
    """

    name: str
    n: int
    match_rate: float
    match_interval: tuple[float, float]
    rmse: float
    rmse_interval: tuple[float, float]
    note: str = ""


def line(
    name: str,
    n: int,
    best: Sequence[float | None],
    *,
    worst: float | None = None,
    note: str = "",
) -> Line:
    """Return a line from the smallest distance of each entry (None: no match).

    Args:
        n: samples per entry.
        worst: distance counted for an entry without a match; None leaves it out of the mean.
    """
    values = np.array([math.nan if r is None else r for r in best], dtype=np.float64)  # [n_entries]
    rng = np.random.default_rng(0)
    resampled = [
        _scores(values[rng.integers(len(values), size=(CHUNK, len(values)))], worst)
        for _ in range(RESAMPLES // CHUNK)
    ]
    rates, means = (np.concatenate(parts) for parts in zip(*resampled, strict=True))
    rate, mean = (float(score[0]) for score in _scores(values[None], worst))
    finite = means[~np.isnan(means)]
    return Line(
        name=name,
        n=n,
        match_rate=rate,
        match_interval=_interval(rates),
        rmse=mean,
        rmse_interval=_interval(finite) if len(finite) else (math.nan, math.nan),
        note=note,
    )


def best_of(rms: Sequence[Sequence[float | None]], n: int) -> list[float | None]:
    """Return the smallest distance among the first n samples of each entry; None: no match."""
    return [min((r for r in row[:n] if r is not None), default=None) for row in rms]


def best_with_polymorphs(
    rms: Sequence[Sequence[float | None]],
    others: Mapping[tuple[int, int], Sequence[float | None]],
    n: int,
) -> list[float | None]:
    """Return the smallest distance of each structure to the first n samples of any entry of its formula.

    Args:
        rms: distances between each entry's structure and its own samples.
        others: by (i, j), distances between the structure of entry i and the samples of entry j.
    """
    best = best_of(rms, n)
    for (i, _), row in others.items():
        best[i] = min((r for r in (best[i], *row[:n]) if r is not None), default=None)
    return best


def _scores(
    values: NDArray[np.float64], worst: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return match rates and mean distances [k] of sets of entries [k, n]; NaN is an entry without match."""
    matched = ~np.isnan(values)
    n_matched = matched.sum(axis=1)
    total = np.where(matched, values, 0.0).sum(axis=1)
    if worst is not None:
        n_entries = values.shape[1]
        return n_matched / n_entries, (total + worst * (n_entries - n_matched)) / n_entries
    with np.errstate(invalid="ignore"):
        return n_matched / values.shape[1], total / n_matched


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, WITHIN)
    return float(low), float(high)
