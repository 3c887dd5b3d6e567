"""Options of patterns and of solving."""

from __future__ import annotations

import pytest

from crystallm.diffraction.options import PatternOptions, SolveOptions, SolveReferenceOptions
from crystallm.errors import InputError


def test_candidates_come_from_both_by_default():
    assert SolveReferenceOptions().crystals_from == "both"


@pytest.mark.parametrize(
    ("group", "values"),
    [
        (SolveOptions, {"candidates": 0}),
        (SolveOptions, {"answers": 0}),
        (PatternOptions, {"radiation": "electrons"}),
    ],
)
def test_values_out_of_range_are_rejected(group, values):
    with pytest.raises(InputError, match=next(iter(values))):
        group.build(values)
