"""Requests with conditions: parsed, checked against the model, spread over a range, kept in the results."""

from __future__ import annotations

import itertools
import logging

import pytest

import crystallm
from conditioned_networks import conditioned_model
from crystallm.errors import InputError
from crystallm.generation import conditions
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models import huggingface, model_card
from crystallm.models.folder import save
from crystallm.models.load import load_model
from crystallm.references.options import ReferenceOptions


@pytest.fixture(scope="module")
def model():
    return conditioned_model()


def test_values_and_ranges_are_parsed():
    one, two = conditions.parse_conditions(("density=5.2", "band_gap=1.2:1.8"))
    assert (one.name, one.low, one.high) == ("density", 5.2, 5.2)
    assert (two.low, two.high) == (1.2, 1.8)
    assert (str(one), str(two)) == ("density = 5.2", "band_gap = 1.2 to 1.8")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("density",), "write density=5.2, or a range"),
        (("density=heavy",), "condition = 'density=heavy'"),
        (("density=nan",), "condition = 'density=nan'"),
        (("density=1:2:3",), "a range such as"),
        (("density=6:5",), "the range ends below its start"),
        (("density=5", "density=6"), "name each property once"),
    ],
)
def test_impossible_conditions_are_reported(texts, message):
    with pytest.raises(InputError, match=message):
        conditions.parse_conditions(texts)


@pytest.mark.parametrize(
    "given",
    [
        {"density": 5.2, "band_gap": (1.2, 1.8)},
        ["density=5.2", "band_gap=1.2:1.8"],
        "density=5.2 band_gap=1.2:1.8",
        "density=5.2,band_gap=1.2:1.8",
        ("density=5.2; band_gap=1.2:1.8",),
    ],
)
def test_a_request_takes_mappings_lists_and_texts(given):
    assert Request(formula="TiO2", conditions=given).conditions == ("density=5.2", "band_gap=1.2:1.8")


def test_a_range_is_spread_evenly_over_the_samples(model):
    requested = conditions.parse_conditions(("density=4:8",))
    values = [conditions.values_of(model, requested, seed=3, first=0, sample=j) for j in range(40)]
    assert {gap for _, gap in values} == {None}
    densities = sorted(density for density, _ in values)
    assert densities[0] < 4.2
    assert densities[-1] > 7.8
    assert max(b - a for a, b in itertools.pairwise(densities)) < 0.3
    assert conditions.values_of(model, requested, seed=3, first=0, sample=7) == values[7]


def test_a_property_that_the_model_was_not_trained_with_is_an_error(model, parrot):
    with pytest.raises(InputError, match="'densty': the model 'conditioned' .* did you mean density"):
        crystallm.generate("NaCl", model=model, conditions={"densty": 5.0})
    with pytest.raises(
        InputError, match="it takes none, fine-tune one with crystallm train --condition dens"
    ):
        crystallm.generate("NaCl", model=str(parrot), conditions={"density": 5.0})


def test_a_value_outside_of_the_training_data_is_logged_with_the_range(model, caplog):
    conditions._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        conditions.check_conditions(model, conditions.parse_conditions(("density=40",)))
    assert "density = 40 is outside of the training data (1 to 12 g/cm^3)" in caplog.text


def test_known_crystals_follow_no_conditions(model):
    with pytest.raises(InputError, match="known crystals follow none, sample with --from network"):
        crystallm.generate(
            "NaCl", model=model, conditions={"density": 5.0}, known=ReferenceOptions(crystals_from="both")
        )


def test_crystals_depend_on_their_conditions_and_name_them(model):
    options = {"z": 4, "n": 4, "model": model, "seed": 1}
    plain = crystallm.generate("NaCl", **options)
    dense = crystallm.generate("NaCl", conditions={"density": (2.0, 9.0)}, guidance=1.5, **options)
    again = crystallm.generate("NaCl", conditions={"density": (2.0, 9.0)}, guidance=1.5, **options)
    assert [crystal.ids for crystal in dense] == [crystal.ids for crystal in again]
    assert [crystal.ids for crystal in dense] != [crystal.ids for crystal in plain]
    assert all(crystal.source.conditions.startswith("density=") for crystal in dense)
    assert len({crystal.source.conditions for crystal in dense}) == 4
    assert dense[0].row()["conditions"] == dense[0].source.conditions
    assert plain[0].row()["conditions"] is None


@pytest.mark.parametrize("fields", [{"formula": "TiO2", "z": "auto"}, {"elements": "Mg-O"}, {}])
def test_what_a_request_leaves_open_is_chosen_with_the_conditions(model, fields):
    requests = [Request(n=2, conditions=given, **fields) for given in (["density=2"], ["density=9"], [])]
    generator = Generator(model, requests, SamplingOptions(seed=1, max_new_tokens=60, guidance=2.0))
    together = [[crystal.ids for crystal in of_one] for of_one in generator.generate(range(3))]
    assert together[0] != together[2]
    alone = Generator(model, requests[:1], SamplingOptions(seed=1, max_new_tokens=60, guidance=2.0)).generate(
        [0]
    )
    assert [crystal.ids for crystal in next(alone)] == together[0]
    assert generator.note(0) != generator.note(2) or not fields


def test_values_of_a_range_do_not_decide_the_tokens(model):
    """Points of the same ratio would give each value of the range one part of the structures only."""

    def points(**more):
        requests = Generator(
            model, [Request(formula="NaCl", z=4, n=4, **more)], SamplingOptions()
        ).sequence_requests(0)
        return [request.point for request, _ in requests]

    assert points(conditions=("density=2:3",)) == [None] * 4
    assert len(set(points())) == 4


def test_a_saved_model_takes_the_same_conditions_and_has_them_in_its_card(model, tmp_path):
    save(model.network, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved", device="cpu")
    assert loaded.config == model.config
    assert loaded.fingerprint == model.fingerprint
    options = {"z": 4, "n": 2, "seed": 1, "conditions": {"density": 4.0}}
    one, two = (crystallm.generate("NaCl", model=each, **options) for each in (model, loaded))
    assert [crystal.ids for crystal in one] == [crystal.ids for crystal in two]
    assert "| condition `density` | 1 to 12 g/cm^3 |" in model_card.markdown(loaded)


def test_the_form_of_hugging_face_has_no_conditions_and_says_so(model, tmp_path):
    with pytest.raises(InputError, match=r"has conditions \(density, band_gap\), which the forms of GPT-2"):
        huggingface.write(model, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
