"""Requests and sampling options."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.generation.request import LEAST_TEMPERATURE, SamplingOptions


@pytest.mark.parametrize("temperature", [1e-300, 1e-38, 0.0099])
def test_a_temperature_that_leaves_the_range_of_float32_is_refused(temperature):
    with pytest.raises(InputError, match="take 0, the most likely token, or at least 0.01"):
        SamplingOptions.build({"temperature": temperature})
    assert SamplingOptions(temperature=0).temperature == 0
    assert SamplingOptions(temperature=LEAST_TEMPERATURE).temperature == LEAST_TEMPERATURE
