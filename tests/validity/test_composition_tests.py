"""Tests of compositions and cells."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from crystallm.validity import composition_tests


def test_the_composition_test_is_smacts_own() -> None:
    from smact.screening import smact_validity

    rng = np.random.default_rng(0)
    symbols = (
        "H Li C N O F Na Mg Al Si P S Cl K Ca Ti V Mn Fe Cu Zn Br Zr Sn I Ba La Pm Re Pb U He Xe".split()
    )
    verdicts = []
    for _ in range(400):
        chosen = rng.choice(symbols, size=rng.integers(1, 5), replace=False)
        counts = {str(s): int(n) for s, n in zip(chosen, rng.integers(1, 7, len(chosen)), strict=True)}
        verdict = composition_tests.passes_smact(tuple(sorted(counts.items())))
        assert verdict == smact_validity(Composition(counts), oxidation_states_set="smact14"), counts
        verdicts.append(verdict)
    assert 100 < sum(verdicts) < 300


@pytest.mark.parametrize(
    ("cell", "sensible"),
    [
        ((5, 5, 5, 169.9, 90, 90), True),
        ((5, 5, 5, 90, 90, 170.1), False),
        ((5, 5, 5, 90, 10.1, 90), True),
        ((5, 5, 5, 90, 9.9, 90), False),
        ((0.51, 5, 999, 90, 90, 90), True),
        ((0.49, 5, 5, 90, 90, 90), False),
        ((5, 5, 1001, 90, 90, 90), False),
    ],
)
def test_bounds_of_a_sensible_cell(cell, sensible) -> None:
    crystal = Structure(Lattice.from_parameters(*cell), ["Na"], [[0, 0, 0]])
    assert composition_tests.is_sensible(crystal) is sensible
