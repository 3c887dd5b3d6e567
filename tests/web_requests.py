"""Requests that several tests of the web submit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import powder_patterns

if TYPE_CHECKING:
    from crystallm.diffraction.powder_model import PowderCrystal

RUTILE = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 3, "seed": 5}
SEARCH = {"kind": "search", "formula": "TiO2", "z": 2, "simulations": 40, "seed": 3}
LONG_SEARCH = {**SEARCH, "simulations": 1000, "seed": 4}


def pattern_text(crystal: PowderCrystal | None = None) -> str:
    """The table of a powder pattern, by default of rutile with a peak of an impurity at 33.2 degrees."""
    measured = powder_patterns.measured(crystal or powder_patterns.rutile())
    impurity = 800 * np.exp(-(((measured.two_theta - 33.2) / 0.06) ** 2))
    return "\n".join(
        f"{angle:.3f} {count:.0f}"
        for angle, count in zip(measured.two_theta, measured.intensity + impurity, strict=True)
    )
