"""CHGNet as an energy model."""

from __future__ import annotations

import importlib.util

import pytest

from crystallm import energy


def needs(package):
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


needs_ase, needs_chgnet, needs_sevenn = needs("ase"), needs("chgnet"), needs("sevenn")


@needs_chgnet
@needs_ase
def test_chgnet_conforms_and_knows_rutile(textbook_structures):
    model = energy.load("chgnet", device="cpu")
    energy.check(model)
    (found,) = model.predict([textbook_structures["rutile"]], forces=True)
    # The Materials Project's energies with its corrections, on which it was trained.
    assert found.energy == pytest.approx(-9.38, abs=0.03)
