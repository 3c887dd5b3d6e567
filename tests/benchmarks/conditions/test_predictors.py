"""Values of properties: of the structure, of an energy model, of a function."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest

from crystallm.benchmarks.conditions.predictors import load_predictor, parse_predictors
from crystallm.errors import InputError


@pytest.fixture
def functions(monkeypatch):
    module = ModuleType("my_predictors")
    module.sizes = lambda structures: [
        len(structure) if len(structure) > 6 else math.nan for structure in structures
    ]
    module.number = 3
    monkeypatch.setitem(sys.modules, "my_predictors", module)


def test_density_and_volume_are_computed(textbook_structures):
    structures = list(textbook_structures.values())
    densities = load_predictor("density", {}, "chgnet")(structures)
    assert densities == [structure.density for structure in structures]
    volumes = load_predictor("volume_per_atom", {}, "chgnet")(structures)
    assert volumes == [structure.volume / len(structure) for structure in structures]


@pytest.mark.usefixtures("functions")
def test_a_function_computes_any_property(textbook_structures):
    functions = parse_predictors(["n=my_predictors:sizes"])
    rutile, salt = textbook_structures["rutile"], textbook_structures["rocksalt"]
    assert load_predictor("n", functions, "chgnet")([rutile, salt]) == [None, 8.0]


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("name", "texts", "message"),
    [
        ("gap", [], "nothing computes 'gap': name a function with --predictor gap=module:function"),
        ("gap", ["gap"], "predictor = 'gap': write band_gap=module:function"),
        ("gap", ["gap=my_predictors:number"], "my_predictors:number': not a function"),
        ("gap", ["gap=my_predictors:missing"], "predictor = 'my_predictors:missing'"),
        ("gap", ["gap=no_such_module:f"], "No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_computed_is_reported(name, texts, message):
    with pytest.raises(InputError, match=message):
        load_predictor(name, parse_predictors(texts), "chgnet")
