"""Requests that are checked before they become jobs."""

from __future__ import annotations

import pytest

import crystallm
from crystallm.web.formula_check import FieldError
from crystallm.web.request_check import check_energy_model
from web_requests import SEARCH


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "formula", "write a formula, such as TiO2, or elements"),
        ({"elements": "Ti-Po"}, "elements", "has no token"),
        ({"elements": "Ti-O", "formula": "TiO2"}, "elements", "give one or the other"),
        ({"space_group": "Fm7m"}, "space_group", "no space group 'Fm7m'"),
        ({"space_group": "auto"}, "space_group", "leave it out"),
        ({"conditions": ["density=5"]}, "conditions", "was not trained with it; it takes none"),
        ({"formula": "NaCl", "conditions": ["density"]}, "conditions", "write density=5.2"),
        ({"conditions": ["density=5"], "crystals_from": "both"}, "crystals_from", "follow no conditions"),
    ],
)
def test_a_wrong_request_without_a_formula_names_its_field(body, field, message, served):
    answer = served.post({"kind": "generate", **body})
    assert answer.status == 422
    assert answer.error["field"] == field
    assert message in answer.error["message"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"simulations": 1001}, "simulations"),
        ({"simulations": 0}, "simulations"),
        ({"n": 65}, "n"),
        ({"energy_calls": 0}, "energy_calls"),
        ({"energy": "os:system"}, "energy"),
        ({"preset": "theirs"}, "preset"),
        ({"space_group": 225}, "space_group"),
        ({"formula": "Xy2"}, "formula"),
        ({"temperature": 1.0}, "temperature"),
    ],
)
def test_a_wrong_search_names_its_field(wrong, field, served):
    answer = served.post({**SEARCH, **wrong})
    assert answer.status == 422
    assert answer.error["field"] == field


def test_a_request_may_name_its_group_in_any_setting(served, parrot):
    body = {"kind": "generate", "formula": "SrTiO3", "z": 4, "space_group": "Pbnm", "n": 1, "seed": 2}
    crystals = crystallm.generate("SrTiO3", z=4, space_group=62, n=1, seed=2, model=parrot)
    assert [one["cif"] for one in served.done(body)["crystals"]] == [one.cif for one in crystals]


def test_a_server_without_energy_models_has_no_search():
    with pytest.raises(FieldError, match="no energy model") as error:
        check_energy_model([], None, needed=True)
    assert error.value.field == "energy"


@pytest.mark.parametrize(
    ("name", "needed", "expected"), [(None, False, None), (None, True, "first"), ("second", False, "second")]
)
def test_the_first_energy_model_is_the_default_of_what_needs_one(name, needed, expected):
    assert check_energy_model(["first", "second"], name, needed=needed) == expected
