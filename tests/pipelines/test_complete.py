"""Completion of a structure: what is rejected before a model is loaded."""

from __future__ import annotations

import pytest

from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import InputError
from crystallm.generation.request import FormulaOptions, SamplingOptions
from crystallm.pipelines import complete
from crystallm.pipelines.options import CompleteOptions


@pytest.mark.parametrize(
    ("whole", "sampling", "message"),
    [
        ({}, {}, "no formula: give that of the whole crystal"),
        ({"formula": "LiFePO4", "z": "auto"}, {}, "z = 'auto' of a crystal to complete"),
        ({"formula": "LiFePO4"}, {"constraints": "syntax"}, "constraints = 'syntax'"),
        ({"formula": "SrTiO3"}, {}, "has no Na, which the given structure holds"),
        ({"formula": "NaCl"}, {}, "nothing is missing"),
    ],
)
def test_what_cannot_be_completed_is_rejected_first(whole, sampling, message, textbook_structures, tmp_path):
    path = tmp_path / "salt.cif"
    textbook_structures["rocksalt"].to_file(str(path))
    with pytest.raises(InputError, match=message):
        complete.run(
            str(path),
            FormulaOptions(**whole),
            SamplingOptions(model="nowhere", **sampling),
            SelectionOptions(),
            CompleteOptions(),
        )
