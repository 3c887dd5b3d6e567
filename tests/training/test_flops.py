"""Floating-point operations of training and the peak of devices."""

from __future__ import annotations

import pytest
import torch

from crystallm.network import transformer
from crystallm.network.config import ModelConfig
from crystallm.training import flops

CPU = torch.device("cpu")


def test_operations_are_counted_as_palm_counts():
    config = ModelConfig(language="cif", vocab_size=371, n_layer=8, n_embd=512, context=1024)
    n = transformer.GPT(config).num_parameters()
    per_token = flops.count_operations(config, n, 10, 10 * 1024) / 10
    assert per_token == pytest.approx(6 * 25.4e6 + 12 * 8 * 512 * 1024, rel=0.01)


def test_a_run_counts_its_operations(run):
    _, seen = run(packing="random", context=64, max_updates=2, gradient_accumulation=2)
    net = transformer.GPT(
        ModelConfig(language="orbits", vocab_size=40, n_layer=1, n_head=2, n_embd=16, context=64)
    )
    expected = flops.count_operations(net.config, net.num_parameters(), 2 * 256, 2 * 256 * 64)
    assert seen[-1][0].operations == expected


def test_the_peak_of_this_machine_is_measured():
    found, origin = flops.peak(CPU, "float32")
    assert origin == "measured"
    assert 1e9 < found < 1e14


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("Tesla T4", 65),
    ],
)
def test_the_peak_of_a_gpu_is_that_of_its_data_sheet(monkeypatch, name, tera):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert flops.peak(torch.device("cuda", 0))[0] == tera * 1e12
