from __future__ import annotations

import pytest
from pydantic import ValidationError

from crystallm.datasets.options import PrepareOptions


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"language": "xyz"}, "language"),
        ({"val_fraction": 0.7, "test_fraction": 0.5}, "leave nothing for training"),
        ({"val_fraction": 1.5}, "whole number"),
        ({"min_volume": 5.0, "max_volume": 4.0}, "above max_volume"),
        ({"standardize": True}, "goes with language none"),
        ({"augmentations": 2, "language": "cif"}, "only the language orbits .* not 'cif'"),
        ({"augmentations": 2, "language": "none"}, "only the language orbits .* not 'none'"),
        ({"augmentations": -1}, "augmentations"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_choices_that_are_none_are_refused(choice, message):
    with pytest.raises(ValidationError, match=message):
        PrepareOptions(**choice)
