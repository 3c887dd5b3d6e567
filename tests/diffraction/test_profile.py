"""Profiles of peaks: areas, widths and derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import powder_patterns
from crystallm.diffraction.profile import ProfileParameters, Profiles
from crystallm.diffraction.radiation import radiation_of

GRID = np.arange(20, 60, 0.01)
ONE = radiation_of("1.5406")
BOTH = radiation_of("CuKa")


def test_a_gaussian_has_its_area_and_width():
    shape = ProfileParameters(0.0, 0.04, 0.0, 0.0, 0.0, 0.0)
    pattern = Profiles(GRID, np.array([40.0]), shape, ONE).pattern(np.array([3.0]))
    assert pattern.sum() * 0.01 == pytest.approx(3.0, rel=1e-3)
    wide = GRID[pattern > pattern.max() / 2]
    assert wide[-1] - wide[0] == pytest.approx(0.2, abs=0.02)


def test_a_second_wavelength_adds_a_peak_behind():
    shape = replace(powder_patterns.PROFILE, zero=0.0, w=0.001)
    one = Profiles(GRID, np.array([50.0]), shape, ONE).pattern(np.array([1.0]))
    both = Profiles(GRID, np.array([50.0]), shape, BOTH).pattern(np.array([1.0]))
    added = GRID[(both - one).argmax()]
    assert added == pytest.approx(
        2 * np.degrees(np.arcsin(np.sin(np.radians(25)) * 1.54439 / 1.54056)), abs=0.011
    )
    assert (both - one).max() == pytest.approx(one.max() / 2, rel=0.02)


@pytest.mark.parametrize("radiation", [ONE, BOTH])
def test_derivatives_are_those_of_differences(radiation):
    angles, intensities, shape = (
        np.array([25.0, 41.0, 57.3]),
        np.array([1.0, 2.0, 0.5]),
        powder_patterns.PROFILE,
    )
    if radiation is ONE:
        shape = replace(shape, ratio=0.0)
    found = Profiles(GRID, angles, shape, radiation)
    step = 1e-6
    changed = [
        replace(shape, zero=shape.zero + step),
        replace(shape, w=shape.w * np.exp(step)),
        replace(shape, x=shape.x * np.exp(step)),
        replace(shape, u=shape.u * np.exp(step)),
        replace(shape, eta=shape.eta + step),
        replace(shape, ratio=shape.ratio + step),
    ]
    base, slopes = found.pattern(intensities), found.by_profile(intensities)
    for k, other in enumerate(changed):
        difference = (Profiles(GRID, angles, other, radiation).pattern(intensities) - base) / step
        assert difference == pytest.approx(slopes[:, k], abs=1e-2 * max(np.abs(slopes[:, k]).max(), 0.1))
    shift = np.array([[1.0], [-0.5], [2.0]])
    moved = Profiles(GRID, angles + step * shift[:, 0], shape, radiation).pattern(intensities)
    slope = found.by_angle(intensities, shift)[:, 0]
    assert (moved - base) / step == pytest.approx(slope, abs=5e-3 * np.abs(slope).max())


def test_reflections_off_the_grid_do_no_harm():
    pattern = Profiles(GRID, np.array([5.0, 90.0, 180.0]), powder_patterns.PROFILE, BOTH).pattern(np.ones(3))
    assert np.abs(pattern).max() < 0.05
