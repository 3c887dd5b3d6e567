"""Rwp, similarity, and what stays unexplained."""

from __future__ import annotations

import numpy as np
import pytest

import powder_patterns
from crystallm.diffraction.likeness import likeness, parameter_penalty, similarity, spacing
from crystallm.diffraction.pattern import PowderPattern, prepare
from crystallm.diffraction.radiation import radiation_of
from crystallm.diffraction.refinement import Refinement

GRID = np.arange(20, 60, 0.02)


def peak(angle):
    return np.exp(-(((GRID - angle) / 0.05) ** 2))


def test_small_shifts_are_forgiven():
    values = [similarity(peak(40), peak(40 + shift), 0.02) for shift in (0.0, 0.1, 0.3, 0.9)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    assert values[2] == pytest.approx(0.5, abs=0.1)
    assert values[3] == pytest.approx(0, abs=1e-3)
    assert similarity(peak(40), np.zeros_like(GRID), 0.02) == 0


def test_a_crystal_fits_its_pattern_to_the_noise():
    crystal, pattern = powder_patterns.rutile(), prepare(powder_patterns.measured(powder_patterns.rutile()))
    fit = Refinement(pattern, radiation_of("CuKa")).run(crystal, powder_patterns.PROFILE)
    found = likeness(pattern, fit.peaks, pattern.intensity - fit.calculated, 8)
    assert found.fits
    assert found.rwp == pytest.approx(fit.rwp)
    assert found.rwp == pytest.approx(found.expected, rel=0.15)
    assert found.similarity > 0.99
    assert found.unexplained == ()


def test_peaks_of_an_impurity_stay_unexplained():
    mixed = powder_patterns.measured(powder_patterns.rutile())
    impurity = 800 * np.exp(-(((mixed.two_theta - 33.2) / 0.06) ** 2))
    pattern = prepare(PowderPattern(mixed.two_theta, mixed.intensity + impurity))
    fit = Refinement(pattern, radiation_of("CuKa")).run(powder_patterns.rutile(), powder_patterns.PROFILE)
    found = likeness(pattern, fit.peaks, pattern.intensity - fit.calculated, 8)
    assert [round(peak.two_theta, 1) for peak in found.unexplained] == [33.2]
    assert 0 < found.share_unexplained < 0.1


def test_a_crystal_with_half_of_the_peaks_fits_in_part():
    mixed = powder_patterns.measured(powder_patterns.rutile())
    impurity = sum(8000 * np.exp(-(((mixed.two_theta - angle) / 0.06) ** 2)) for angle in (33.2, 47.0))
    pattern = prepare(PowderPattern(mixed.two_theta, mixed.intensity + impurity))
    fit = Refinement(pattern, radiation_of("CuKa")).run(powder_patterns.rutile(), powder_patterns.PROFILE)
    found = likeness(pattern, fit.peaks, pattern.intensity - fit.calculated, 8)
    assert not found.fits
    assert found.fits_in_part
    assert found.rwp_explained < 0.2 < found.rwp


def test_another_crystal_fits_not():
    pattern = prepare(powder_patterns.measured(powder_patterns.rutile()))
    fit = Refinement(pattern, radiation_of("CuKa")).run(powder_patterns.anatase())
    found = likeness(pattern, fit.peaks, pattern.intensity - fit.calculated, 8)
    assert not found.fits
    assert not found.fits_in_part


def test_parameters_cost_where_reflections_are_few():
    angles = np.arange(20.0, 30.0)
    assert parameter_penalty(0, angles, np.ones(10), 0.1) == 1
    assert parameter_penalty(5, angles, np.ones(10), 0.1) == pytest.approx(np.sqrt(2))
    assert parameter_penalty(5, np.repeat(angles, 2), np.ones(20), 0.1) == pytest.approx(np.sqrt(2))


def test_spacings_follow_bragg():
    assert spacing(28.443, 1.5406) == pytest.approx(3.1355, abs=1e-4)
