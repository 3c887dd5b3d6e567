"""Crystals and patterns that tests of powder diffraction share."""

from __future__ import annotations

from functools import cache

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.diffraction.pattern import PowderPattern
from crystallm.diffraction.powder_model import OrbitOfElement, PowderCrystal, ReflectionSet
from crystallm.diffraction.profile import ProfileParameters, Profiles
from crystallm.diffraction.radiation import Radiation, radiation_of


def crystal(number: int, orbits: str, cell: list[float], coordinates: list[float]) -> PowderCrystal:
    """A crystal of `Ti 2a O 4f`, free cell parameters and free coordinates."""
    group = space_groups.get(number)
    words = orbits.split()
    labels = [position.label for position in group.wyckoff]
    found = tuple(
        OrbitOfElement(element, labels.index(label))
        for element, label in zip(words[::2], words[1::2], strict=True)
    )
    return PowderCrystal(group, found, np.array(cell), np.array(coordinates, dtype=float))


@cache
def rutile() -> PowderCrystal:
    """TiO2, as measured (Burdett et al. 1987)."""
    return crystal(136, "Ti 2a O 4f", [4.587, 2.954], [0.3047])


@cache
def anatase() -> PowderCrystal:
    """TiO2, as measured (Burdett et al. 1987)."""
    return crystal(141, "Ti 4a O 8e", [3.782, 9.502], [0.2081])


@cache
def quartz() -> PowderCrystal:
    """SiO2, as measured (Levien et al. 1980)."""
    return crystal(152, "Si 3a O 6c", [4.9137, 5.4047], [0.4697, 0.4133, 0.2672, 0.1188])


@cache
def albite() -> PowderCrystal:
    """A triclinic crystal, not a real one."""
    return crystal(2, "Na 2i Cl 2i", [4.1, 5.2, 6.3, 85.0, 95.0, 101.0], [0.11, 0.23, 0.31, 0.62, 0.71, 0.84])


PROFILE = ProfileParameters(zero=0.03, w=0.008, x=0.001, u=0.001, eta=0.4, ratio=0.5)


def measured(
    of: PowderCrystal,
    *,
    radiation: Radiation | None = None,
    profile: ProfileParameters = PROFILE,
    counts: float = 1e4,
    background: float = 100.0,
    seed: int = 0,
) -> PowderPattern:
    """A pattern with the noise of counts, on a sloping background."""
    radiation = radiation or radiation_of("CuKa")
    angles = np.arange(15, 90.001, 0.025)
    found = ReflectionSet(of, radiation, 92.0).intensities(of, 0.4)
    peaks = Profiles(angles, found.two_theta, profile, radiation).pattern(found.values)
    level = background * (1.5 - angles / 180)
    mean = peaks / peaks.max() * counts + level
    return PowderPattern(angles, np.random.default_rng(seed).poisson(mean).astype(float), name="test.xy")
