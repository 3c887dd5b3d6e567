"""Requests of known values, with and without the condition."""

from __future__ import annotations

import pytest

from conditioned_networks import conditioned_model
from crystallm.benchmarks.conditions import benchmark
from crystallm.benchmarks.options import ConditionOptions
from crystallm.datasets import prepare
from crystallm.datasets.options import PrepareOptions
from crystallm.errors import InputError
from crystallm.generation.request import SamplingOptions
from prepared import write_csv


@pytest.fixture
def data(tmp_path, textbook_structures, undrawn):
    rows = [(name, crystal.to(fmt="cif"), "val") for name, crystal in textbook_structures.items()]
    path = write_csv(tmp_path / "book.csv", rows, ("material_id", "cif", "split"))
    prepare.prepare([path], tmp_path / "data", PrepareOptions(split_by="given"))
    return str(tmp_path / "data")


def options(data, **fields):
    return ConditionOptions(**{"data": data, "condition": ("density",), "given": "cell", **fields})


def test_each_known_crystal_is_requested_with_multiples_of_its_value(data, textbook_structures):
    targets = benchmark.read_targets(data, "density", options(data, factors=(0.9, 1.1)))
    assert len(targets) == 2 * len(textbook_structures)
    rutile = [target for target in targets if target.fields["formula"] == "Ti2O4"]
    density = textbook_structures["rutile"].density
    assert [target.value for target in rutile] == pytest.approx([0.9 * density, 1.1 * density], rel=1e-4)


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ("nothing", {}),
        ("elements", {"elements": "Ti-O"}),
        ("formula", {"formula": "TiO2", "z": "auto"}),
        ("cell", {"formula": "Ti2O4", "z": 2}),
    ],
)
def test_more_or_less_is_given_beside_the_value(data, given, fields):
    assert fields in [t.fields for t in benchmark.read_targets(data, "density", options(data, given=given))]


def test_a_model_is_measured_with_and_without_the_value(data):
    model = conditioned_model()
    (result,) = benchmark.run(model, options(data, n=2), SamplingOptions(max_new_tokens=80))
    assert (result.score.name, result.score.unit, result.score.n) == ("density", "g/cm^3", 10)
    assert len(result.rows) == 10
    assert result.rows[0].keys() >= {"formula", "entry", "requested", "found", "plain"}


def test_impossible_benchmarks_are_reported(data):
    model = conditioned_model()
    with pytest.raises(InputError, match="'hardness': the model 'conditioned' was not trained with it"):
        benchmark.run(model, options(data, condition=("hardness",)), SamplingOptions())
    with pytest.raises(InputError, match="nothing computes 'band_gap'"):
        benchmark.run(model, options(data, condition=("band_gap",)), SamplingOptions())
    with pytest.raises(InputError, match="no crystal of the split 'test'"):
        benchmark.run(model, options(data, split="test"), SamplingOptions())
