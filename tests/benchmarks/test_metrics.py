"""Match rates, errors and their intervals follow from distances, whoever wrote the samples."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystallm.benchmarks import metrics

distance = st.one_of(st.none(), st.floats(0, 0.5))
entries = st.lists(st.lists(distance, min_size=4, max_size=4), min_size=1, max_size=12)


@given(entries)
def test_more_samples_never_match_less(rms):
    rates = [metrics.line("x", n, metrics.best_of(rms, n)).match_rate for n in range(1, 5)]
    assert rates == sorted(rates)


@given(entries, st.randoms())
def test_the_order_of_entries_changes_no_rate(rms, random):
    shuffled = list(rms)
    random.shuffle(shuffled)
    one, other = (metrics.line("x", 4, metrics.best_of(r, 4)) for r in (rms, shuffled))
    assert one.match_rate == other.match_rate
    assert one.rmse == pytest.approx(other.rmse, nan_ok=True)


@given(entries)
def test_intervals_hold_the_value_and_lie_within_bounds(rms):
    line = metrics.line("x", 4, metrics.best_of(rms, 4))
    low, high = line.match_interval
    assert 0 <= low <= line.match_rate <= high <= 1
    if not math.isnan(line.rmse):
        assert 0 <= line.rmse_interval[0] <= line.rmse_interval[1] <= 0.5


def test_an_interval_is_that_of_a_binomial_share():
    """120 of 400: 1.96 sqrt(p (1 - p) / n) = 4.5 % to either side."""
    line = metrics.line("x", 1, [0.1] * 120 + [None] * 280)
    assert line.match_interval == pytest.approx((0.30 - 0.045, 0.30 + 0.045), abs=0.008)


def test_an_unmatched_structure_costs_crmse_the_tolerance():
    line = metrics.line("x", 1, [0.1, None], worst=metrics.NO_MATCH)
    assert line.rmse == pytest.approx((0.1 + 0.5) / 2)
    assert metrics.line("x", 1, [0.1, None]).rmse == pytest.approx(0.1)
    assert math.isnan(metrics.line("x", 1, [None]).rmse)


def test_a_polymorph_counts_wherever_it_was_written():
    """Entry 0 was written only among the samples of entry 1, and only by its second one."""
    rms = [[None, None], [0.2, None]]
    others = {(0, 1): [None, 0.3], (1, 0): [0.1, None]}
    assert metrics.best_with_polymorphs(rms, others, 1) == [None, 0.1]
    assert metrics.best_with_polymorphs(rms, others, 2) == [0.3, 0.1]


@given(entries)
def test_without_polymorphs_metre_is_the_match_rate(rms):
    assert metrics.best_with_polymorphs(rms, {}, 4) == metrics.best_of(rms, 4)
