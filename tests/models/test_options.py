"""Options of commands on models."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.models.options import ConvertOptions, ModelsOptions


def test_defaults_convert_to_float32_with_the_usual_tolerance():
    options = ConvertOptions()
    assert (options.weights_dtype, options.symprec, options.push) == ("float32", 0.1, None)
    assert ModelsOptions().fetch is None


@pytest.mark.parametrize(
    "values", [{"weights_dtype": "int8"}, {"symprec": 0}, {"symprec": 10}, {"to": "onnx"}]
)
def test_values_out_of_range_are_rejected(values):
    (name,) = values
    with pytest.raises(InputError, match=f"{name} = "):
        ConvertOptions.build(values)
