"""Rows with different numbers of new tokens give the features of separate rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystallm.network import kernels, ragged
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from ragged_rows import CONTEXT, VOCABULARY, assert_as_alone, network, write

WIDE = ModelConfig(language="cif", vocab_size=VOCABULARY, n_layer=1, n_head=8, n_embd=512)


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda _: False)


@pytest.mark.parametrize("way", ["compiled", "on a CPU", "on a GPU"])
@pytest.mark.parametrize("form", ["gpt2", "llama"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_see_what_they_would_see_alone(form, way, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "_prefers_copies", lambda _: way == "on a GPU")
        if way != "compiled":
            patch.setattr(kernels, "available", lambda _: False)
        _rows_of_any_lengths(form, data)


def _rows_of_any_lengths(form, data):
    n_rows = data.draw(st.integers(1, 12))
    step = st.lists(st.sampled_from([1, 1, 1, 2, 3, 7, 30]), min_size=n_rows, max_size=n_rows)
    assert_as_alone(network(form), data.draw(st.lists(step, min_size=1, max_size=5)))


def test_a_long_row_sees_all_of_itself_beside_many_short_ones(without_numba):
    # Each goes on by one token: all but the long row are read with few columns.
    steps = [[150] + [3] * 30, [1] * 31]
    rows, _ = write(network("llama"), steps)
    assert len(rows[0]) == 151
    assert_as_alone(network("llama"), steps)


def test_rows_that_are_all_read_alone_see_what_they_would_see_alone(without_numba):
    steps = [[5, 60, 130, 90, 20], [30, 7, 2, 19, 3]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "_CALL_COST", 0.0)
        assert_as_alone(network("llama"), steps)
        net = network("gpt2")
        cache = net.new_cache(5, CONTEXT)
        cache.set_lengths(steps[0])
        assert len(ragged.plan_runs([[1] * n for n in steps[1]], cache).groups) == 5
        assert_as_alone(net, steps)


def test_the_long_row_is_read_apart():
    net = network("llama")
    cache = net.new_cache(31, CONTEXT)
    cache.set_lengths([150] + [3] * 30)
    first, *others = ragged.plan_runs([[1]] * 31, cache).groups
    assert first.width < 150
    assert [group.width for group in others] == [151]


def test_rows_of_all_lengths_are_each_read_once():
    net, rng = GPT(WIDE).eval(), np.random.default_rng(0)
    cached, runs = rng.permutation(np.arange(10, 1000, 40)), rng.integers(2, 20, size=25)
    cache = net.new_cache(len(cached))
    cache.set_lengths(cached.tolist())
    groups = ragged.plan_runs([[1] * n for n in runs], cache).groups
    assert [group.rows for group in groups] == [slice(row, row + 1) for row in range(len(cached))]
    assert [group.width for group in groups] == (cached + runs).tolist()


def test_nothing_is_copied_where_all_rows_are_alike():
    net = network("llama")
    cache = net.new_cache(8, CONTEXT)
    cache.set_lengths([5] * 8)
    (group,) = ragged.plan_runs([[1]] * 8, cache).groups
    assert (group.rows, group.valid, group.indices) == (slice(0, 8), None, None)
