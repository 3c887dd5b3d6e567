"""Rank correlations of requested and found values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crystallm.benchmarks.conditions.scores import interval, score, spearman


def test_the_rank_correlation_is_scipys():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one = rng.normal(size=60)
    other = one + rng.normal(size=60).round(0)  # with ties
    assert spearman(one, other) == pytest.approx(float(spearmanr(one, other).statistic))
    low, high = interval(one, other)
    assert low < spearman(one, other) < high
    assert math.isnan(spearman(one[:2], other[:2]))
    assert math.isnan(spearman(np.ones(5), other[:5]))


def test_perfect_and_absent_obedience():
    requested = [float(i) for i in range(1, 41)]
    plain = [20.0, 21.0] * 20
    scored = score("density", "g/cm^3", range(40), requested, found=requested, plain=plain)
    assert (scored.spearman, scored.mae, scored.n, scored.n_found) == (pytest.approx(1.0), 0.0, 40, 40)
    assert abs(scored.plain_spearman) < 0.2
    assert scored.plain_mae > 5
    assert scored.quantiles["found"][1] == pytest.approx(20.5)
    assert math.isnan(scored.within)


def test_within_an_entry_the_composition_does_not_count():
    entries = [i // 3 for i in range(60)]
    base = [1.0 + i // 3 for i in range(60)]
    requested = [value * factor for value, factor in zip(base, [0.9, 1.0, 1.1] * 20, strict=True)]
    deaf = [value * jitter for value, jitter in zip(base, [1.0, 1.01, 1.0] * 20, strict=True)]
    scored = score("density", "", entries, requested, found=deaf, plain=deaf)
    assert scored.spearman > 0.9
    assert abs(scored.within) < 0.1
    assert score("density", "", entries, requested, found=requested, plain=deaf).within == pytest.approx(1.0)


def test_missing_values_are_left_out_and_counted():
    scored = score(
        "gap", "eV", range(5), [1.0, 2.0, 3.0, 4.0, 5.0], found=[1.0, None, 3.0, 4.0, None], plain=[None] * 5
    )
    assert (scored.n, scored.n_found) == (5, 3)
    assert scored.spearman == pytest.approx(1.0)
    assert math.isnan(scored.plain_spearman)
    assert scored.quantiles["plain"] == ()
