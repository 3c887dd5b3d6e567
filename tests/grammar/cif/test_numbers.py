"""Numbers of CIF texts, character by character."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crystallm.crystallography import cells, space_groups
from crystallm.grammar.cif.numbers import PHYSICAL, UNITS, next_characters, parameter_limit, volume_limit


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_numbers_stay_within_their_limit(lowest, width, rng):
    text = ""
    while (options := next_characters(text, lowest, lowest + width)) != "\n":
        text += rng.choice(options)
    assert lowest <= round(float(text) * UNITS) <= lowest + width
    assert text == f"{float(text):.4f}"
    wanted = f"{rng.randint(lowest, lowest + width) / UNITS:.4f}"
    for i, character in enumerate(wanted):
        assert character in next_characters(wanted[:i], lowest, lowest + width)


@given(st.integers(1, 230), st.integers(1, 300), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_cells_have_a_volume_within_the_limits(number, n_atoms, rng):
    group = space_groups.get(number)
    known: dict[str, float] = {}
    for name in group.free_cell:
        low, high = parameter_limit(group, n_atoms, known, name, PHYSICAL)
        assert low <= high
        known[name] = rng.choice([low, high, rng.randint(low, high)]) / UNITS
    cell = group.complete_cell(known)
    volume = cells.volume(cell)
    # The edges are rounded to four decimals where they stand at their limit.
    assert 0.999 * PHYSICAL.volume[0] <= volume / n_atoms <= 1.001 * PHYSICAL.volume[1]
    assert volume >= 0.999 * PHYSICAL.flatness * np.prod(cell[:3])
    low, high = volume_limit(group, cell)
    assert low <= round(volume * UNITS) <= high
