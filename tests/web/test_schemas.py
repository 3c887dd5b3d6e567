"""Request schemas: bounds of the option models, tighter where a server needs it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

pytest.importorskip("fastapi", reason="the page needs fastapi")

from crystallm.generation.request import Request, SamplingOptions
from crystallm.web.schemas import KINDS, GenerateRequest, RelaxRequest, SearchRequest, request_from_record


def test_defaults_and_descriptions_are_those_of_the_option_models():
    for model, names in ((SamplingOptions, ("temperature", "top_k", "top_p")), (Request, ("elements",))):
        for name in names:
            field, source = GenerateRequest.model_fields[name], model.model_fields[name]
            assert field.default == source.default
            assert field.description == source.description
            assert field.description


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 10.1),
        ("top_k", 0),
        ("top_k", 100_001),
        ("top_p", 0.0),
        ("n", 0),
    ],
)
def test_bounds_are_those_of_the_option_models_and_tighter_ones(name, value):
    with pytest.raises(ValidationError):
        request_from_record({"kind": "generate", "formula": "TiO2", name: value})
    with pytest.raises(ValidationError):
        request_from_record({"kind": "generate", "formula": "TiO2", name: str(value)})  # types are strict


def test_tighter_bounds_do_not_change_the_option_models():
    assert SamplingOptions(temperature=20.0).temperature == 20.0
    assert RelaxRequest.model_fields["steps"].default == 200


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_an_example_that_is_valid(kind):
    (example,) = KINDS[kind].model_config["json_schema_extra"]["examples"]
    request = request_from_record(example)
    assert request.kind == kind
    assert request_from_record(request.model_dump()) == request


def test_unknown_fields_are_rejected():
    with pytest.raises(ValidationError, match="device"):
        SearchRequest(kind="search", formula="TiO2", device="cuda")
