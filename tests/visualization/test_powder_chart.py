"""The chart of a fitted pattern."""

from __future__ import annotations

import numpy as np

from crystallm.visualization.powder_chart import fitted_pattern


def test_a_fitted_pattern_is_drawn():
    angles = np.linspace(10, 80, 200)
    measured = 100 + 900 * np.exp(-((angles - 40) ** 2))
    png = fitted_pattern(
        angles, measured, measured - 5, title="TiO2", reflections=[40.0], unexplained=[60.0, 70.0]
    )
    assert png.startswith(b"\x89PNG")
    assert fitted_pattern(angles, measured, measured, title="no reflections").startswith(b"\x89PNG")
