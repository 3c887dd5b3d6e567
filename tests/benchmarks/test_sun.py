"""Stable, unique and novel: figures worked out by hand, and crystals without an energy count as unstable."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from crystallm.benchmarks import sun


def row(e=None, *, unique=True, novel=True, energy=-1.0, rmsd=None, why=None):
    found = {"energy": energy, "e_above_hull": e, "unique": unique, "novel": novel, "rmsd": rmsd}
    return {"converged": True, "energy_reason": why, "compare_reason": None, **found}


ROWS = [
    row(-0.02),  # S.U.N.
    row(4e-16),  # S.U.N.: on the hull
    row(0.0, unique=False),
    row(-0.5, novel=False),
    row(0.05),  # M.S.U.N. alone
    row(0.1),  # likewise: at the bound
    row(0.05, unique=False, novel=False),
    row(0.2),
    row(energy=None, why="no crystal"),
    row(why="no entry of the element K"),
]


def test_sun_of_ten_crystals_is_what_one_counts():
    found = sun.summarise(ROWS, energies=True, relaxed=True, hull=True, known=True)
    counts = {name: one.count for name, one in found.shares.items()}
    assert counts == {
        "with_energy": 9, "converged": 10, "placed": 8, "stable": 4, "metastable": 7, "unique": 8, "novel": 8,
        "sun": 2, "msun": 4,
    }  # fmt: skip
    assert found.shares["sun"].share == 0.2
    assert found.reasons == {"no crystal": 1, "no entry of the element K": 1}
    assert found.e_above_hull is not None
    assert found.e_above_hull.n == 8
    # -0.5, -0.02, 0, 0, 0.05, 0.05, 0.1, 0.2
    assert found.e_above_hull.median == pytest.approx(0.025)
    assert found.e_above_hull.mean == pytest.approx(-0.015)
    closer = sun.summarise(ROWS, bound=0.05, energies=True, relaxed=True, hull=True, known=True)
    assert (closer.shares["metastable"].count, closer.shares["msun"].count) == (6, 3)
    assert closer.shares["sun"] == found.shares["sun"]


def test_only_what_was_asked_for_is_told():
    bare = sun.summarise(ROWS, energies=False, relaxed=False, hull=False, known=True)
    assert list(bare.shares) == ["unique", "novel"]
    assert bare.e_above_hull is None
    assert bare.rmsd is None
    nothing = sun.summarise([row(energy=None)], energies=True, relaxed=True, hull=True, known=False)
    assert "sun" not in nothing.shares
    assert nothing.e_above_hull is not None
    assert math.isnan(nothing.e_above_hull.median)
    assert json.loads(json.dumps(nothing.record(), allow_nan=False))["rmsd"]["median"] is None


def test_intervals_of_shares_are_wilsons():
    # Newcombe, Statistics in Medicine 17, 857 (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, n, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        found = sun.share(count, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert sun.share(20, 20).high == 1.0


def test_intervals_of_a_median_hold_it_and_shrink():
    rng = np.random.default_rng(3)
    few, many = (sun.spread(list(rng.normal(0.3, 1.0, size=n))) for n in (30, 3000))
    assert few.median_interval[0] < few.median < few.median_interval[1]
    assert np.ptp(many.median_interval) < 0.3 * np.ptp(few.median_interval)
    assert sun.spread([0.3, None, 0.1]) == sun.spread([0.1, 0.3])
