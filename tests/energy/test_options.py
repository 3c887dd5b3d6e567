"""Options of energies need an energy model."""

from __future__ import annotations

import pytest

from crystallm.energy.options import EnergyOptions
from crystallm.errors import InputError


@pytest.mark.parametrize("given", [{"relax": True}, {"formation_energy": True}, {"hull": "hull.csv"}])
def test_what_is_derived_from_energies_needs_a_model(given):
    with pytest.raises(InputError, match=f"{next(iter(given))}.* without energy"):
        EnergyOptions.build(given)
    assert EnergyOptions.build({"energy": "chgnet", **given}).energy == "chgnet"
