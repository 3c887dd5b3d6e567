"""Options that select crystals."""

from __future__ import annotations

import pytest

from crystallm.crystals.selection import ATTEMPTS, SelectionOptions
from crystallm.errors import InputError


@pytest.mark.parametrize(
    ("given", "ranking"),
    [
        ({}, None),
        ({"best": 3}, "agreement"),
        ({"energy": "chgnet"}, "energy"),
        ({"energy": "chgnet", "best": 3}, "energy"),
        ({"rank": "likelihood", "best": 3}, "likelihood"),
        ({"rank": "combined", "energy": "chgnet"}, "combined"),
    ],
)
def test_ranking_follows_from_what_is_requested(given, ranking):
    assert SelectionOptions.build(given).ranking == ranking


def test_samples_are_drawn_until_enough_are_valid_or_the_limit_is_reached():
    assert SelectionOptions().attempts(7) == 7
    assert SelectionOptions(only_valid=True).attempts(7) == 7 * ATTEMPTS
    assert SelectionOptions(only_valid=True, max_attempts=20).attempts(7) == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": "energy"}, "rank = 'energy' without energy"),
        ({"max_attempts": 5}, "max_attempts = 5 without only_valid"),
        ({"relax": True}, "relax without energy"),
        ({"best": 0}, "best = '0'"),
    ],
)
def test_options_that_need_another_one_are_rejected_without_it(given, message):
    with pytest.raises(InputError, match=message):
        SelectionOptions.build(given)
