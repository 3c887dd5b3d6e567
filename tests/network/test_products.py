"""Products with packed weights are those with plain ones, for all sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crystallm.network import products
from ragged_rows import network, write


@given(n=st.integers(1, 5000))
def test_few_sizes_hold_all_numbers_of_tokens(n):
    size = products.padded_size(n)
    assert n <= size < n + 256
    assert products.padded_size(size) == size
    assert len(products.pad(torch.ones(n, 1), size)) == size


@pytest.mark.parametrize("form", ["gpt2", "llama"])
def test_packed_weights_give_what_plain_ones_give(form):
    net = network(form, torch.bfloat16)
    steps = [[20, 3, 9, 1], [1, 5, 1, 1], [1, 1, 1, 1]]
    rows, last = write(net, steps)
    for row, found in zip(rows, last, strict=True):
        with torch.inference_mode():
            alone = net.features(torch.tensor([row]))[0, -len(found) :]
        assert (found.float() - alone.float()).abs().max() < 0.1  # of numbers about 1, with 8 bits each
