"""Known phases beside a crystal."""

from __future__ import annotations

import pytest

import powder_patterns
from crystallm.diffraction import fitting
from crystallm.diffraction.pattern import PowderPattern, prepare
from crystallm.diffraction.radiation import radiation_of
from crystallm.diffraction.solution.phases import fit_phases, mass_shares, read_phases
from crystallm.errors import InputError

CU = radiation_of("CuKa")
SALT = powder_patterns.crystal(225, "Na 4a Cl 4b", [5.64], [])
"""NaCl."""


def mixture(height: float) -> PowderPattern:
    """Rutile with salt, whose highest peak has a share of the height of rutile's."""
    main = powder_patterns.measured(powder_patterns.rutile())
    salt = powder_patterns.measured(SALT, counts=1e4 * height, background=0.0)
    return PowderPattern(main.two_theta, main.intensity + salt.intensity, name="mixture.xy")


def test_a_phase_that_the_pattern_has_is_refined_and_another_is_not():
    crystal = powder_patterns.rutile()
    shared = {
        "pattern": fitting.pattern_record(prepare(mixture(0.2))),
        "radiation": fitting.radiation_record(CU),
    }
    alone = fitting.fit_coordinates(
        {**shared, "fit": fitting.fit_cell({**shared, "crystal": fitting.crystal_record(crystal), "seed": 0})}
    )
    phases = [powder_patterns.quartz(), SALT.with_values(cell=SALT.cell * 1.005)]
    fit = fit_phases({**shared, "fit": alone, "phases": [fitting.crystal_record(p) for p in phases]})
    (salt,) = fit["phases"]
    assert salt["index"] == 1
    assert fitting.crystal_of(salt["crystal"]).cell == pytest.approx([5.64], rel=3e-4)
    assert fit["rwp"] < 0.5 * alone["rwp"]
    assert fitting.crystal_of(fit["crystal"]).cell == pytest.approx(crystal.cell, rel=3e-4)
    assert 0 < mass_shares([fit, salt])[1] < 0.25


def test_equal_scales_are_masses_times_volumes():
    records = [
        {"crystal": fitting.crystal_record(crystal), "scale": 2.0}
        for crystal in (powder_patterns.rutile(), SALT)
    ]
    masses = [crystal.structure().composition.weight for crystal in (powder_patterns.rutile(), SALT)]
    first, second = (m * v for m, v in zip(masses, (4.587**2 * 2.954, 5.64**3), strict=True))
    assert mass_shares(records) == pytest.approx([first / (first + second), second / (first + second)])


def test_phases_are_cifs(tmp_path):
    path = tmp_path / "NaCl.cif"
    path.write_text(SALT.cif(), encoding="utf-8")
    (phase,) = read_phases([path])
    assert (phase.name, phase.crystal.group.number) == ("NaCl", 225)
    path.write_text("5 100\n6 120\n", encoding="utf-8")
    with pytest.raises(InputError, match="phase 'NaCl': .*give the CIF"):
        read_phases([path])
    with pytest.raises(InputError, match="no phase .*there is no such file"):
        read_phases([tmp_path / "other.cif"])
