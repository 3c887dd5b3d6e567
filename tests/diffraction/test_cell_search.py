"""Cells that are found from some per cent off."""

from __future__ import annotations

import numpy as np
import pytest

import powder_patterns
from crystallm.diffraction.cell_search import find_cells
from crystallm.diffraction.pattern import prepare
from crystallm.diffraction.powder_model import ReflectionSet
from crystallm.diffraction.radiation import radiation_of


@pytest.mark.parametrize(
    ("name", "factors"), [("rutile", [1.04, 0.97]), ("anatase", [0.96, 0.95]), ("quartz", [1.03, 1.05])]
)
def test_the_cell_is_found(name, factors):
    crystal = getattr(powder_patterns, name)()
    pattern = prepare(powder_patterns.measured(crystal))
    wrong = crystal.with_values(cell=crystal.cell * factors)
    reflections = ReflectionSet(wrong, radiation_of("CuKa"), 90.0, 0.15)
    (cell, score), *_ = find_cells(pattern, wrong, reflections, n=2)
    assert cell == pytest.approx(crystal.cell, rel=4e-3)
    assert score > 0.85
    assert find_cells(pattern, wrong, reflections)[0][0] == pytest.approx(cell)  # the same seed


def test_a_triclinic_cell_is_found():
    crystal = powder_patterns.albite()
    pattern = prepare(powder_patterns.measured(crystal))
    wrong = crystal.with_values(cell=crystal.cell + np.array([0.05, -0.04, 0.06, 0.8, -0.7, 0.5]))
    reflections = ReflectionSet(wrong, radiation_of("CuKa"), 90.0, 0.15)
    (cell, _), *_ = find_cells(pattern, wrong, reflections)
    assert np.abs(cell / crystal.cell - 1).max() < 0.01
