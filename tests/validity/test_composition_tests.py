"""Tests of compositions and cells."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Composition

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
