"""ASE calculators as energy models."""

from __future__ import annotations

import importlib.util

import pytest

from crystallm import energy


def needs(package):
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


needs_ase, needs_chgnet, needs_sevenn = needs("ase"), needs("chgnet"), needs("sevenn")


@needs_ase
def test_a_calculator_of_ase_conforms():
    model = energy.load("ase.calculators.lj:LennardJones")
    calculator = pytest.importorskip("ase.calculators.lj").LennardJones(
        sigma=2.5, epsilon=0.2, rc=7.0, ro=5.0, smooth=True
    )
    from crystallm.energy.ase_adapter import AseModel

    assert type(model) is AseModel
    energy.check(AseModel(calculator, "lj"))
