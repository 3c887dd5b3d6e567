"""Requests and sampling options."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.generation.interpretation import candidate_cells
from crystallm.generation.request import LEAST_TEMPERATURE, Request, SamplingOptions, with_default_z


@pytest.mark.parametrize("temperature", [1e-300, 1e-38, 0.0099])
def test_a_temperature_that_leaves_the_range_of_float32_is_refused(temperature):
    with pytest.raises(InputError, match="take 0, the most likely token, or at least 0.01"):
        SamplingOptions.build({"temperature": temperature})
    assert SamplingOptions(temperature=0).temperature == 0
    assert SamplingOptions(temperature=LEAST_TEMPERATURE).temperature == LEAST_TEMPERATURE


@pytest.mark.parametrize(
    ("formula", "z"),
    [("TiO2", "auto"), ("Ti2O4", None), ("Hg2Cl2", "auto"), ("Hg4Cl4", None), ("C6H12O6", "auto")],
)
def test_z_is_open_for_a_reduced_formula_and_a_molecule(formula, z):
    assert with_default_z(Request(formula=formula)).z == z
    assert with_default_z(Request(formula=formula, z=3)).z == 3


def test_a_molecule_stays_whole_in_the_cells_that_are_tried():
    tried = candidate_cells("Hg2Cl2", None, fitting=True)
    assert [cell.z for cell in tried[:3]] == [2, 4, 6]
    assert {dict(cell.composition)["Hg"] % 2 for cell in tried} == {0}
    assert [cell.z for cell in candidate_cells("HgCl", None, fitting=True)[:3]] == [1, 2, 3]
