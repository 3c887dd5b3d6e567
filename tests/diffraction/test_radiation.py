"""Wavelengths by name, and scattering of atoms."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.diffraction.radiation import radiation_of, scattering
from crystallm.errors import InputError


def test_wavelengths_have_names_and_numbers():
    assert radiation_of("CuKa").wavelengths == (1.54056, 1.54439)
    assert radiation_of("cu kα").wavelengths == (1.54056, 1.54439)
    assert radiation_of("MoKa1").wavelengths == (0.70930,)
    assert radiation_of("1.5406").wavelengths == (1.5406,)


@pytest.mark.parametrize(
    ("name", "message"),
    [("CuKb", "did you mean CuKa"), ("154.06", "0.05 to 10"), ("0", "from 0.05"), ("xx", "there are")],
)
def test_other_wavelengths_are_rejected(name, message):
    with pytest.raises(InputError, match=message):
        radiation_of(name)


def test_forward_scattering_is_the_number_of_electrons():
    found = scattering(["Ti", "O"], np.array([0.0, 1.0]), "xray")
    assert found[:, 0] == pytest.approx([22, 8], abs=0.05)
    assert (found[:, 1] < found[:, 0]).all()


def test_neutrons_are_scattered_alike_at_all_angles():
    assert scattering(["V", "O"], np.array([0.0, 4.0]), "neutron") == pytest.approx(
        np.array([[-0.38, -0.38], [5.80, 5.80]]), abs=0.02
    )


def test_angles_follow_bragg():
    radiation = radiation_of("1.5406")
    assert radiation.two_theta(np.array([1 / 3.1355**2]))[0] == pytest.approx(28.443, abs=1e-3)  # Si 111
    assert radiation.two_theta(np.array([4.0]))[0] == 180.0  # beyond the range
