"""Predictions of energy models: which numbers are accepted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crystallm.energy.protocol import BOUND, Prediction, problem


@pytest.mark.parametrize(
    ("prediction", "reason"),
    [
        (Prediction(-5.0), ""),
        (Prediction(math.nan), "the energy is nan"),
        (Prediction(-BOUND - 1), "the energy is -101 eV/atom, out of bounds (±100)"),
        (Prediction(-5.0, forces=np.full((2, 3), np.inf)), "the forces are not all numbers"),
        (
            Prediction(-5.0, forces=np.zeros((2, 3)), stress=np.full((3, 3), np.nan)),
            "the stress are not all numbers",
        ),
    ],
)
def test_numbers_of_a_prediction(prediction, reason):
    assert problem(prediction) == reason
