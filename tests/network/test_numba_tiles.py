"""Attention by tiles against numpy in float64, and within a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crystallm.network import kernels, ragged
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT

numba_tiles = pytest.importorskip("crystallm.network.numba_tiles")
pytestmark = pytest.mark.skipif(not numba_tiles.permitted(), reason="this processor has no tiles")


def bfloat(numbers):
    return torch.from_numpy(numbers).to(torch.bfloat16)


def keys_as_tiles(keys):
    *shape, width, n_dims = keys.shape
    return keys.reshape(*shape, width // 16, 16, n_dims // 2, 2).swapaxes(-3, -2).reshape(keys.shape)


def values_as_tiles(values):
    *shape, width, n_dims = values.shape
    split = values.reshape(*shape, width // 32, 16, 2, n_dims // 16, 16)
    return np.moveaxis(split, (-2, -4, -1, -3), (-4, -3, -2, -1)).reshape(values.shape)


@pytest.mark.parametrize("n_dims", [32, 64, 96])
@pytest.mark.parametrize(("n_cached", "n_new"), [(0, 1), (5, 3), (31, 1), (32, 17), (70, 40)])
def test_attention_of_one_row_equals_softmax_of_products(n_cached, n_new, n_dims):
    rng, n_heads = np.random.default_rng(0), 2
    qkv = bfloat(rng.normal(size=(n_new, 3, n_heads, n_dims)))
    known = np.zeros((2, 1, n_heads, 128, n_dims))
    known[:, 0, :, :n_cached] = rng.normal(size=(2, n_heads, n_cached, n_dims))
    old = bfloat(known)
    keys = np.ascontiguousarray(keys_as_tiles(kernels.array_of(old[0])))
    values = np.ascontiguousarray(values_as_tiles(kernels.array_of(old[1])))
    plan = np.array([[0], [n_new], [n_cached]], dtype=np.int64)
    out = torch.empty(n_new, n_heads, n_dims, dtype=torch.bfloat16)
    kernels.RowAttention(plan, None, tiled=True)(kernels.array_of(qkv), keys, values, kernels.array_of(out))
    old[:, 0, :, n_cached : n_cached + n_new] = qkv[:, 1:].permute(1, 2, 0, 3)
    assert np.array_equal(keys, keys_as_tiles(kernels.array_of(old[0])))
    assert np.array_equal(values, values_as_tiles(kernels.array_of(old[1])))
    new_keys, new_values = old[:, 0].double().numpy()
    for token in range(n_new):
        width = n_cached + token + 1
        for head in range(n_heads):
            scores = new_keys[head, :width] @ qkv[token, 0, head].double().numpy() / np.sqrt(n_dims)
            weights = np.exp(scores - scores.max())
            expected = weights / weights.sum() @ new_values[head, :width]
            assert np.allclose(out[token, head].float(), expected, atol=2e-2)


@pytest.mark.parametrize("form", ["gpt2", "llama"])
def test_rows_see_what_they_would_see_alone(form):
    torch.manual_seed(0)
    config = ModelConfig(
        language="orbits", form=form, vocab_size=50, n_layer=2, n_head=2, n_embd=128, context=160
    )
    net = GPT(config).eval().to(torch.bfloat16)
    reader, rng = ragged.RaggedNetwork(net), np.random.default_rng(0)
    cache = reader.new_cache(3, 160)
    assert cache.tiled
    cache.set_lengths([0] * 3)
    rows = [[], [], []]
    with torch.inference_mode():
        for lengths in ([40, 1, 7], [1, 50, 2], [3, 1, 20]):
            tokens = [rng.integers(50, size=n).tolist() for n in lengths]
            runs = reader.runs(tokens, cache)
            found = reader.features(runs, cache)
            for row, run, start in zip(rows, tokens, runs.starts, strict=True):
                row.extend(run)
                alone = net.features(torch.tensor([row]))[0, -len(run) :]
                assert (found[start : start + len(run)] - alone).abs().max() < 0.1
    cache.drop_rows([0])
    new_row = reader.new_cache(1, 5)
    with torch.inference_mode():
        new_row.set_lengths([0])
        reader.features(reader.runs([[7, 8]], new_row), new_row)
        cache.fill_row(2, new_row)
        found = reader.features(reader.runs([[1], [2], [3]], cache), cache)
        texts = ([*rows[2], 1], [*rows[1], 2], [7, 8, 3])
        for row, text in zip(found, texts, strict=True):
            assert (row - net.features(torch.tensor([text]))[0, -1]).abs().max() < 0.1
