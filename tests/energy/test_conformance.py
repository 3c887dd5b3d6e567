"""Energy models that keep to the protocol, and models that break it."""

from __future__ import annotations

import pytest

import energies
from crystallm import energy
from crystallm.errors import CrystallmError


def test_a_model_of_which_we_know_all_conforms():
    energy.check(energies.Morse())


@pytest.mark.parametrize(("said", "kind"), energies.BROKEN.items())
def test_a_broken_model_is_refused_with_what_is_broken(said, kind):
    with pytest.raises(CrystallmError, match=said):
        energy.check(kind())
