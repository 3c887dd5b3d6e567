from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.pipelines.options import (
    CollectionOptions,
    EvaluateOptions,
    HullOptions,
    RelaxCollectionOptions,
    ScoreOptions,
)


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (EvaluateOptions, {"relax": True}, "relax without energy"),
        (EvaluateOptions, {"hull": "h.csv"}, "hull = 'h.csv' without energy"),
        (EvaluateOptions, {"energy": "chgnet", "steps": 9}, "steps = 9 without relax"),
        (EvaluateOptions, {"energy": "chgnet", "metastable_threshold": 0.2}, "without hull"),
        (EvaluateOptions, {"read_as": "crystal"}, "'auto' or 'text'"),
        (HullOptions, {"steps": 9}, "steps = 9 without relax"),
        (RelaxCollectionOptions, {"best": 0}, "best = '0'"),
        (ScoreOptions, {"out": "scores.txt"}, r"ends in \.csv or \.parquet"),
    ],
)
def test_options_that_do_not_fit_are_one_line(group, values, message):
    with pytest.raises(InputError, match=message) as caught:
        group.build(values)
    assert "\n" not in str(caught.value)


def test_a_collection_is_required():
    assert CollectionOptions(path="cifs").collection() == "cifs"
    with pytest.raises(InputError, match="no crystals"):
        CollectionOptions().collection()


def test_only_what_decides_the_rows_is_part_of_the_configuration():
    options = EvaluateOptions(path="a", out="b", energy="chgnet", known=("k",))
    deciding = options.deciding()
    assert {"path", "out", "metastable_threshold"}.isdisjoint(deciding)
    assert (deciding["energy"], deciding["known"]) == ("chgnet", ["k"])


def test_relaxation_follows_from_steps():
    assert EvaluateOptions(energy="chgnet").relaxation is None
    assert EvaluateOptions(energy="chgnet", relax=True, steps=7).relaxation.steps == 7
