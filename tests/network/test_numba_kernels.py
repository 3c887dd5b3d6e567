"""Compiled arithmetic against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest

numba_kernels = pytest.importorskip("crystallm.network.numba_kernels")


def test_attention_of_one_row_equals_softmax_of_products():
    rng = np.random.default_rng(0)
    n_cached, n_new, n_heads, n_dims = 5, 3, 2, 8
    qkv = rng.normal(size=(n_new, 3, n_heads, n_dims)).astype(np.float32)
    keys = np.zeros((1, n_heads, 16, n_dims), np.float32)
    values = np.zeros_like(keys)
    keys[0, :, :n_cached] = rng.normal(size=(n_heads, n_cached, n_dims))
    values[0, :, :n_cached] = rng.normal(size=(n_heads, n_cached, n_dims))
    plan = np.array([[0], [n_new], [n_cached]], dtype=np.int64)
    out = np.empty((n_new, n_heads, n_dims), np.float32)
    no_rotation = np.empty((2, 0, 0), np.float32)
    numba_kernels.attend(qkv, no_rotation, keys, values, plan, 12, (0, 1), out)
    assert np.array_equal(keys[0, :, n_cached : n_cached + n_new], qkv[:, 1].transpose(1, 0, 2))
    for token in range(n_new):
        width = n_cached + token + 1
        for head in range(n_heads):
            scores = keys[0, head, :width].astype(np.float64) @ qkv[token, 0, head] / np.sqrt(n_dims)
            weights = np.exp(scores - scores.max())
            expected = weights / weights.sum() @ values[0, head, :width]
            assert np.allclose(out[token, head], expected, atol=1e-5)


def test_norm_and_gate_follow_their_equations():
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    out = np.empty_like(x)
    stream, update = x.copy(), rng.normal(size=(3, 6)).astype(np.float32)
    numba_kernels.rms_norm(stream, update, weight, 1e-5, out)
    assert np.array_equal(stream, x + update)
    x = stream
    again = np.empty_like(x)
    numba_kernels.rms_norm(stream, update[:0], weight, 1e-5, again)
    assert np.array_equal(again, out)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-5) * weight
    assert np.allclose(out, expected, atol=1e-5)
    gated = np.empty((3, 3), np.float32)
    numba_kernels.swiglu(x, gated)
    gate, value = x[:, :3].astype(np.float64), x[:, 3:]
    assert np.allclose(gated, gate / (1 + np.exp(-gate)) * value, atol=1e-5)
