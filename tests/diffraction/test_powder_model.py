"""Intensities of crystals, against pymatgen, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import powder_patterns
import real_crystals
from crystallm.diffraction.powder_model import PowderCrystal, ReflectionSet, powder_lines
from crystallm.diffraction.radiation import radiation_of
from crystallm.orbits import description

MONOCHROMATIC = radiation_of("1.54184")


def curve(angles, intensities):
    grid = np.arange(5, 90, 0.05)
    return (np.exp(-(((grid[:, None] - angles) / 0.1) ** 2)) * intensities).sum(axis=1)


@pytest.mark.parametrize("index", range(0, 60, 4))
def test_patterns_are_those_of_pymatgen(index):
    xrd = pytest.importorskip("pymatgen.analysis.diffraction.xrd")
    found = description.describe(real_crystals.structures()[index])
    structure = description.to_structure(found)
    crystal = PowderCrystal.of(found)
    reference = xrd.XRDCalculator(1.54184).get_pattern(structure, two_theta_range=(4, 91), scaled=False)
    own = ReflectionSet(crystal, MONOCHROMATIC, 91.0).intensities(crystal)
    first, second = curve(reference.x, reference.y), curve(own.two_theta, own.values)
    assert first @ second / np.sqrt((first @ first) * (second @ second)) > 0.999
    assert second.sum() / first.sum() == pytest.approx(1, abs=0.06)  # other form factors


@pytest.mark.parametrize("name", ["rutile", "anatase", "quartz", "albite"])
def test_derivatives_are_those_of_differences(name):
    crystal = getattr(powder_patterns, name)()
    reflections = ReflectionSet(crystal, MONOCHROMATIC, 80.0)
    found = reflections.intensities(crystal, 0.5, derivatives=True)
    step = 1e-6
    for k in range(len(crystal.coordinates)):
        moved = crystal.coordinates.copy()
        moved[k] += step
        other = reflections.intensities(crystal.with_values(coordinates=moved), 0.5).values
        scale = np.abs(found.by_coordinate[:, k]).max()
        assert (other - found.values) / step == pytest.approx(found.by_coordinate[:, k], abs=1e-3 * scale)
    other = reflections.intensities(crystal, 0.5 + step).values
    assert (other - found.values) / step == pytest.approx(found.by_displacement, rel=1e-3, abs=1e-3)


def test_a_crystal_has_a_structure_and_a_cif():
    structure = powder_patterns.rutile().structure()
    assert structure.composition.formula == "Ti2 O4"
    assert structure.get_space_group_info(0.01)[1] == 136
    assert "_symmetry_Int_Tables_number" in powder_patterns.quartz().cif()


def test_the_second_wavelength_does_not_move_the_first():
    crystal = powder_patterns.rutile()
    both, one = radiation_of("CuKa"), radiation_of("CuKa1")
    angles = [
        ReflectionSet(crystal, radiation, 80.0).intensities(crystal).two_theta for radiation in (both, one)
    ]
    assert angles[0] == pytest.approx(angles[1])


def test_lines_are_those_of_another_program(textbook_structures):
    xrd = pytest.importorskip("pymatgen.analysis.diffraction.xrd")
    for structure in textbook_structures.values():
        lines = powder_lines(structure, radiation_of("1.54184"), 5, 90)
        other = xrd.XRDCalculator(1.54184).get_pattern(structure, two_theta_range=(5, 90))
        strong = [(line.two_theta, line.intensity) for line in lines if line.intensity > 5]
        expected = [(x, y) for x, y in zip(other.x, other.y, strict=True) if y > 5]
        assert [angle for angle, _ in strong] == pytest.approx([x for x, _ in expected], abs=0.01)
        assert [value for _, value in strong] == pytest.approx([y for _, y in expected], rel=0.12, abs=1)
        assert lines[0].indices
