"""Records of OPTIMADE."""

from __future__ import annotations

import importlib.util

import pytest

from crystallm.errors import CrystallmError
from crystallm.export import optimade

with_optimade = pytest.mark.skipif(
    importlib.util.find_spec("optimade") is None, reason="the package optimade is not installed"
)


@with_optimade
def test_optimade_records_hold_against_the_models(textbook_structures):
    for name, structure in textbook_structures.items():
        optimade.check(optimade.resource(name, structure, {"energy": -1.0}))
    wrong = optimade.resource("x", textbook_structures["rutile"])
    wrong["attributes"]["nsites"] = 2
    with pytest.raises(CrystallmError, match="no OPTIMADE structure"):
        optimade.check(wrong)


def test_anonymous_formulas_go_on_behind_z():
    assert [optimade._letter(i) for i in (0, 25, 26, 51, 52)] == ["A", "Z", "Aa", "Za", "Ab"]
