"""Refinements that come back to the crystal that made a pattern."""

from __future__ import annotations

import numpy as np
import pytest

import powder_patterns
from crystallm.diffraction.pattern import prepare
from crystallm.diffraction.radiation import radiation_of
from crystallm.diffraction.refinement import Refinement

CU = radiation_of("CuKa")


@pytest.mark.parametrize("name", ["rutile", "anatase", "quartz"])
def test_cell_coordinates_zero_shift_and_widths_come_back(name):
    crystal = getattr(powder_patterns, name)()
    refinement = Refinement(prepare(powder_patterns.measured(crystal)), CU)
    wrong = crystal.with_values(cell=crystal.cell * 1.0015, coordinates=crystal.coordinates + 0.012)
    first = refinement.run(wrong)
    fit = refinement.run(
        first.crystal, first.profile, displacement=first.displacement, coordinates=True, steps=40
    )
    assert fit.rwp < first.rwp
    assert fit.crystal.cell == pytest.approx(crystal.cell, rel=3e-4)
    assert fit.crystal.coordinates == pytest.approx(crystal.coordinates, abs=4e-3)
    assert fit.profile.zero == pytest.approx(0.03, abs=0.012)
    assert fit.profile.ratio == pytest.approx(0.5, abs=0.1)
    widths = [p.widths(np.array([30.0, 60.0])) for p in (fit.profile, powder_patterns.PROFILE)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_neutrons_see_oxygen():
    crystal = powder_patterns.rutile()
    neutrons = radiation_of("1.5", "neutron")
    refinement = Refinement(prepare(powder_patterns.measured(crystal, radiation=neutrons)), neutrons)
    wrong = crystal.with_values(coordinates=crystal.coordinates - 0.01)
    fit = refinement.run(wrong, coordinates=True, steps=30)
    assert fit.crystal.coordinates == pytest.approx(crystal.coordinates, abs=1e-3)


def test_another_crystal_does_not_fit():
    refinement = Refinement(prepare(powder_patterns.measured(powder_patterns.rutile())), CU)
    assert refinement.run(powder_patterns.anatase(), coordinates=True).rwp > 0.8


def test_no_steps_evaluate_a_crystal_as_it_is():
    crystal = powder_patterns.rutile()
    fit = Refinement(prepare(powder_patterns.measured(crystal)), CU).run(
        crystal, powder_patterns.PROFILE, steps=0
    )
    assert fit.crystal.cell.tolist() == crystal.cell.tolist()
    assert fit.rwp < 0.15
    assert fit.peaks.max() == pytest.approx(1e4, rel=0.1)
