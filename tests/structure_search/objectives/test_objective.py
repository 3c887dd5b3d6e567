"""Objectives of a search: density, a pattern, functions, and sums of them."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

import powder_patterns
from crystallm.diffraction.options import PatternOptions
from crystallm.errors import CrystallmError, InputError
from crystallm.structure_search.objectives.objective import Term, WeightedSum, load_objective, parse_terms
from crystallm.structure_search.options import SearchOptions

NONE = PatternOptions()


@pytest.fixture
def functions(monkeypatch):
    module = ModuleType("my_objectives")
    module.volume = lambda structures: [structure.volume for structure in structures]
    module.nan = lambda structures: [float("nan") for _ in structures]
    module.number = 3
    monkeypatch.setitem(sys.modules, "my_objectives", module)


def test_terms_have_weights():
    assert parse_terms(["energy", "density=0.1", "a.b:c=-2"]) == (
        Term("energy", 1.0),
        Term("density", 0.1),
        Term("a.b:c", -2.0),
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["hardness"], "there are energy, density, pattern and module:function"),
        (["energy=much"], "a weight is a number"),
        (["density=0"], "a weight is a number"),
        (["energy", "energy=2"], "name each objective once"),
        ([], "name each objective once"),
    ],
)
def test_other_terms_are_rejected(texts, message):
    with pytest.raises(InputError, match=message):
        parse_terms(texts)


def test_a_sum_of_energy_density_and_a_function(functions, textbook_structures):
    rutile = textbook_structures["rutile"]
    total = WeightedSum(["energy=2", "density=0.5", "my_objectives:volume=0.01"], NONE)
    assert total.value(rutile, -9.0) == pytest.approx(-18 - 0.5 * rutile.density + 0.01 * rutile.volume)
    assert WeightedSum(["density"], NONE).value(rutile, None) == pytest.approx(-rutile.density)
    assert WeightedSum(["my_objectives:nan"], NONE).value(rutile, None) == "the objective is nan"


@pytest.mark.parametrize("name", ["my_objectives:none", "no_such_module:f", "my_objectives:number"])
def test_functions_must_exist(functions, name):
    with pytest.raises(InputError, match=name):
        load_objective(name, NONE)


def test_the_crystal_of_a_pattern_has_the_smallest_misfit(tmp_path):
    pattern = powder_patterns.measured(powder_patterns.rutile())
    path = tmp_path / "rutile.xy"
    np.savetxt(path, np.column_stack([pattern.two_theta, pattern.intensity]))
    misfit = load_objective("pattern", PatternOptions(pattern=path))
    wrong, right = misfit.score([powder_patterns.anatase().structure(), powder_patterns.rutile().structure()])
    assert right < 0.35 < wrong


def test_a_pattern_and_its_objective_belong_together(tmp_path):
    with pytest.raises(InputError, match="name its file with --pattern"):
        load_objective("pattern", NONE)
    with pytest.raises(InputError, match="a pattern has no effect"):
        SearchOptions.build({"measured": {"pattern": "a.xy"}})
    with pytest.raises(CrystallmError, match="no such file"):
        load_objective("pattern", PatternOptions(pattern=tmp_path / "a.xy"))
    assert SearchOptions().needs_energy
    assert not SearchOptions.build({"objective": ("density",)}).needs_energy
