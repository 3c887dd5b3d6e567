"""Compiled kernels: equal to torch, shared by threads, optional."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

import crystallm.network
from crystallm.network import kernels, ragged
from ragged_rows import CONTEXT, assert_as_alone, network, write


def test_threads_share_the_rows(monkeypatch):
    steps = [[150, 2, 70, 1, 1, 30, 5], [1, 12, 13, 1, 3, 1, 1]]
    whole = write(network("llama"), steps)
    plan = np.array([[0, 1, 13, 26, 27, 30, 31], steps[1], steps[0]])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(kernels, "_MIN_PARALLEL_COLUMNS", 0)
    parts = kernels._parts(plan)
    assert [first for first, _ in parts] == [0, *(last for _, last in parts[:-1])]
    assert (len(parts), parts[-1][1]) == (3, 7)
    shared = write(network("llama"), steps)
    for one, other in zip(whole[1], shared[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_layer_norm_is_that_of_torch(dtype, has_bias):
    net = network("gpt2", dtype)
    norm = torch.nn.LayerNorm(32, bias=has_bias, dtype=dtype)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(torch.randn(32).to(dtype))
    x, update = ((3 + torch.randn(7, 32)).to(dtype) for _ in range(2))
    stream = kernels.Stream(7, net.transformer.h[0], net.config)
    stream.x[:] = x
    torch.testing.assert_close(stream.norm(None, norm), norm(x))
    torch.testing.assert_close(stream.norm(update, norm), norm(x + update))
    assert torch.equal(stream.x, x + update)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_norm_and_gate_are_those_of_torch(dtype):
    net = network("llama", dtype)
    block = net.transformer.h[0]
    x, update = ((3 * torch.randn(7, 32)).to(dtype) for _ in range(2))
    stream = kernels.Stream(9, block, net.config)
    stream.set_size(7)
    stream.x[:] = x
    torch.testing.assert_close(stream.norm(None, block.ln_1), block.ln_1(x))
    torch.testing.assert_close(stream.norm(update, block.ln_1), block.ln_1(x + update))
    assert torch.equal(stream.x, x + update)
    wide = torch.cat(
        [(8 * torch.randn(6, 128)).to(dtype), torch.tensor([[-200.0, 200, 0, 1] * 32], dtype=dtype)]
    )
    torch.testing.assert_close(stream.gate(wide), block.mlp.activate(wide))
    stream.x[3, 5] = torch.nan
    assert stream.norm(None, block.ln_1)[3].isnan().all()


def test_a_network_that_is_broken_is_told_of_by_compiled_attention_too():
    net = network("llama")
    net.transformer.wte.weight.data[7] = torch.nan
    reader, cache = ragged.RaggedNetwork(net), net.new_cache(2, CONTEXT)
    cache.set_lengths([0, 0])
    with torch.inference_mode():
        found = reader.features(reader.runs([[1, 7], [1, 2]], cache), cache)
    assert found.isnan().all(dim=1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("reason", ["without numba", "float64"])
def test_what_is_not_compiled_is_read_with_torch(reason, monkeypatch):
    net = network("llama", torch.float64 if reason == "float64" else torch.float32)
    if reason != "float64":
        monkeypatch.delattr(crystallm.network, "numba_kernels", raising=False)
        monkeypatch.setitem(sys.modules, "crystallm.network.numba_kernels", None)
        kernels._numba_kernels.cache_clear()
    assert not kernels.available(net.transformer.wte.weight)
    assert_as_alone(net, [[20, 3, 9, 1], [1, 5, 1, 1]])
    kernels._numba_kernels.cache_clear()


def test_a_compiler_that_fails_is_told_of_and_done_without(monkeypatch, caplog):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'somewhere.else'")

    monkeypatch.setattr(kernels, "_numba_kernels", lambda: types.SimpleNamespace(attend=fail))
    kernels._works.cache_clear()
    assert_as_alone(network("llama"), [[20, 3, 9, 1], [1, 5, 1, 1]])
    assert "(ModuleNotFoundError: No module named 'somewhere.else')" in caplog.text
    kernels._works.cache_clear()
