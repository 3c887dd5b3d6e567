"""Options of the benchmarks: numbers of samples, bounds, missing data."""

from __future__ import annotations

import pytest

from crystallm.benchmarks.options import ClassesOptions, CompoundsOptions, CspOptions
from crystallm.errors import InputError


@pytest.mark.parametrize(("text", "numbers"), [("1,20", (1, 20)), ("7", (7,)), ("[1, 2]", (1, 2))])
def test_numbers_of_samples_are_one_or_several(text, numbers):
    assert CspOptions(n_samples=text).numbers == numbers


@pytest.mark.parametrize("text", ["0", "1,0", "zero", "1.5", ""])
def test_other_numbers_are_rejected(text):
    with pytest.raises(InputError, match="write whole numbers from 1, such as -n 1,20"):
        CspOptions.build({"n_samples": text})


def test_missing_data_is_named():
    with pytest.raises(InputError, match="no data: name one of perov_5"):
        CspOptions().required_data()
    assert CspOptions(data="mp_20").required_data() == "mp_20"


def test_bounds_hold():
    with pytest.raises(InputError, match="limit = '0'"):
        CompoundsOptions.build({"limit": 0})
    with pytest.raises(InputError, match="unknown option 'limits': did you mean limit"):
        ClassesOptions.build({"limits": 1})
