"""Patterns: what is rejected, background, noise and peaks."""

from __future__ import annotations

import numpy as np
import pytest

import powder_patterns
from crystallm.diffraction.pattern import PowderPattern, estimate_background, prepare
from crystallm.errors import CrystallmError, InputError

ANGLES = np.linspace(10, 80, 1400)


@pytest.mark.parametrize(
    ("angles", "counts", "message"),
    [
        (ANGLES[:20], np.ones(20), "20 points"),
        (ANGLES * 100, np.arange(1400.0), "centidegrees"),
        (np.linspace(0.5, 6, 1400), np.arange(1400.0), "are these d or Q"),
        (ANGLES, np.where(np.arange(1400) == 700, -500.0, 100.0), "counts are not negative"),
        (ANGLES, np.full(1400, 3.0), "no peaks"),
        (ANGLES, np.where(np.arange(1400) == 7, np.nan, 100.0), "NaN"),
    ],
)
def test_what_is_no_pattern_is_rejected_in_one_line(angles, counts, message):
    with pytest.raises(InputError, match=message) as error:
        PowderPattern(angles, counts, name="bad.xy")
    assert str(error.value).startswith("bad.xy")
    assert "\n" not in str(error.value)


def test_noise_alone_has_no_peak():
    counts = np.random.default_rng(0).poisson(100.0, 1400).astype(float)
    with pytest.raises(CrystallmError, match="no peak"):
        prepare(PowderPattern(ANGLES, counts))


def test_the_background_runs_below_the_peaks():
    pattern = powder_patterns.measured(powder_patterns.rutile())
    prepared = prepare(pattern)
    level = 100.0 * (1.5 - prepared.two_theta / 180)
    assert np.median(np.abs(prepared.background - level) / level) < 0.15


def test_the_background_follows_a_slope():
    level = 1000 - 5 * ANGLES
    counts = level + 5000 * np.exp(-(((ANGLES - 40) / 0.1) ** 2))
    assert estimate_background(counts, 50) == pytest.approx(level, rel=0.02)


def test_variances_are_those_of_counts():
    prepared = prepare(powder_patterns.measured(powder_patterns.quartz()))
    high = prepared.intensity > 1000
    assert prepared.sigma[high] ** 2 == pytest.approx(prepared.intensity[high], rel=0.2)
    scaled = powder_patterns.measured(powder_patterns.quartz())
    scaled = PowderPattern(scaled.two_theta, scaled.intensity / 1e4)
    other = prepare(scaled)
    assert other.sigma * 1e4 == pytest.approx(prepared.sigma, rel=0.2)


def test_peaks_are_found_where_they_are():
    prepared = prepare(powder_patterns.measured(powder_patterns.rutile()))
    strongest = max(prepared.peaks, key=lambda peak: peak.height)
    assert strongest.two_theta == pytest.approx(27.50, abs=0.06)  # 110
    assert prepared.width == pytest.approx(0.12, abs=0.04)


def test_many_points_are_averaged():
    pattern = powder_patterns.measured(powder_patterns.rutile())
    angles = np.linspace(15, 90, 60_000)
    fine = PowderPattern(angles, np.interp(angles, pattern.two_theta, pattern.intensity))
    assert len(prepare(fine).two_theta) < 6001


def test_scans_of_one_file_are_averaged():
    scans = [powder_patterns.measured(powder_patterns.rutile(), seed=seed) for seed in (1, 2, 3)]
    angles, counts = (np.concatenate([getattr(s, n) for s in scans]) for n in ("two_theta", "intensity"))
    order = np.argsort(angles, kind="stable")
    prepared = prepare(PowderPattern(angles[order], counts[order]))
    assert prepared.step == pytest.approx(prepare(scans[0]).step, rel=0.1)
    assert prepared.intensity.max() == pytest.approx(scans[0].intensity.max(), rel=0.1)


def test_a_part_of_a_pattern():
    part = powder_patterns.measured(powder_patterns.rutile()).within(20, 60)
    assert part.two_theta[0] >= 20
    assert part.two_theta[-1] <= 60
