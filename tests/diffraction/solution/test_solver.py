"""Fits of crystals to one pattern."""

from __future__ import annotations

import pytest

import powder_patterns
from crystallm.crystals.crystal import Crystal
from crystallm.diffraction.radiation import radiation_of
from crystallm.diffraction.solution.solver import Solver
from crystallm.errors import TextError
from crystallm.execution.pool import Inline
from crystallm.language import get_language


def crystal_of(structure):
    language = get_language("orbits")
    return Crystal(language, language.encode(structure))


def test_broken_crystals_are_left_out_and_good_ones_refined():
    solver = Solver(
        powder_patterns.measured(powder_patterns.rutile()), radiation_of("CuKa"), executor=Inline()
    )
    good = crystal_of(powder_patterns.rutile().structure())
    broken = Crystal(get_language("orbits"), good.ids[:5])
    (answer,) = solver.fit("TiO2", [broken, good])
    assert answer.crystal is good
    assert answer.likeness.fits
    assert answer.refined.coordinates == pytest.approx([0.3047], abs=2e-3)
    with pytest.raises(TextError, match="broken"):
        solver.start(broken)


def test_a_crystal_of_another_language_is_described_again():
    language = get_language("cif")
    crystal = Crystal(language, language.encode(powder_patterns.rutile().structure()))
    solver = Solver(
        powder_patterns.measured(powder_patterns.rutile()), radiation_of("CuKa"), executor=Inline()
    )
    assert solver.start(crystal).group.number == 136
