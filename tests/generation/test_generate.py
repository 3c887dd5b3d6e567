"""generate() in Python: which sampling options win, and what is rejected before a model is loaded."""

from __future__ import annotations

import pytest

import crystallm
from crystallm.errors import InputError
from crystallm.generation.generate import sampling_options
from crystallm.generation.request import SamplingOptions


def everyday(**changed):
    given = {"model": "default", "temperature": 1.0, "top_k": 10, "seed": 0, "device": "auto"}
    return given | changed


def test_arguments_win_over_settings_unless_they_are_at_their_default():
    settings = SamplingOptions(temperature=0.5, top_k=3, seed=4)
    merged = sampling_options(settings, **everyday(top_k=7))
    assert (merged.temperature, merged.top_k, merged.seed) == (0.5, 7, 4)


def test_a_seed_of_none_draws_one():
    seeds = {sampling_options(None, **everyday(seed=None)).seed for _ in range(3)}
    assert len(seeds) == 3
    assert sampling_options(None, **everyday(seed=5)).seed == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"formula": "Xx2"}, "Xx is not an element"),
        ({"formula": "TiO2", "z": 3, "space_group": 225}, "cannot fill Fm-3m"),
        ({"formula": "TiO2", "temperature": -1.0}, "temperature"),
        ({"formula": "TiO2", "elements": "Ti-O"}, "give one or the other"),
        ({"template": object()}, "template takes a formula"),
    ],
)
def test_impossible_requests_are_rejected_before_a_model_is_loaded(given, message):
    with pytest.raises(InputError, match=message):
        crystallm.generate(**{"model": "nowhere", **given})
