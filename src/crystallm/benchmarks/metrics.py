"""What distances between samples and known structures add up to: match rates and errors, with intervals.

For entry i and sample j, r_ij is the normalised rms distance of `csp`, none where they do not match.

- match rate at n: the share of ALL entries with some r_ij, j <= n. RMSE at n: the mean over those entries of
  min_{j <= n} r_ij.
- One answer from n: of n samples one is chosen without knowledge of the truth, and counts alone.
- METRe at n (arXiv 2509.12178): the share of known structures that match any of the first n samples of any
  entry of their formula: with several polymorphs of a formula in a set, a model should write them all. cRMSE:
  the mean over all known structures of their smallest distance, with `stol` = 0.5 where nothing matches, so
  that a model cannot improve by matching less.

Intervals hold 95 % of the values over 2,000 bootstrap resamples of the entries. Refuses to know structures.
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
"""Percentiles that bound an interval."""

NO_MATCH = 0.5
"""Distance that cRMSE gives a known structure without a match: the matcher's `stol`."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a benchmark's table.

    Attributes:
        name: what counts: `as the paper`, `all samples`, `valid samples`, `by agreement`, ...
        n: samples an entry.
        match_rate: 0 to 1.
        match_interval: of the rate.
        rmse: NaN where nothing matches.
        rmse_interval: of the RMSE; NaN likewise.
        note: what there is to say, such as its cost.
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
    """A line from the smallest distance of each entry (None: no match).

    Args:
        name: of the line.
        n: samples an entry.
        best: one an entry, and all entries: the rate's denominator.
        worst: distance of an entry without a match in the mean; None leaves it out.
        note: of the line.
    """
    values = np.array([math.nan if r is None else r for r in best], dtype=np.float64)  # [n_entries]
    rng = np.random.default_rng(0)
    drawn = [
        _scores(values[rng.integers(len(values), size=(CHUNK, len(values)))], worst)
        for _ in range(RESAMPLES // CHUNK)
    ]
    rates, means = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    rate, mean = (float(score[0]) for score in _scores(values[None], worst))
    known = means[~np.isnan(means)]
    return Line(
        name=name,
        n=n,
        match_rate=rate,
        match_interval=_interval(rates),
        rmse=mean,
        rmse_interval=_interval(known) if len(known) else (math.nan, math.nan),
        note=note,
    )


def best_of(rms: Sequence[Sequence[float | None]], n: int) -> list[float | None]:
    """For each entry the smallest distance among its first n samples; None: no match."""
    return [min((r for r in row[:n] if r is not None), default=None) for row in rms]


def best_with_polymorphs(
    rms: Sequence[Sequence[float | None]],
    others: Mapping[tuple[int, int], Sequence[float | None]],
    n: int,
) -> list[float | None]:
    """For each known structure its smallest distance to the first n samples of any entry of its formula.

    Args:
        rms: distances between each entry's structure and its own samples.
        others: by (i, j), those between the structure of entry i and the samples of entry j.
        n: samples an entry.
    """
    best = best_of(rms, n)
    for (i, _), row in others.items():
        found = [r for r in (best[i], *row[:n]) if r is not None]
        best[i] = min(found, default=None)
    return best


def _scores(
    values: NDArray[np.float64], worst: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Match rates and mean distances [k] of sets of entries [k, n]; NaN marks an entry without a match."""
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
