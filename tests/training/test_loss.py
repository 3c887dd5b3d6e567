"""Losses of a batch: sums over targets, weights of tokens."""

from __future__ import annotations

import numpy as np
import torch

from crystallm.datasets import packing
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.training.loss import sum_losses

CPU = torch.device("cpu")


def test_sums_are_those_of_single_targets_and_weights_count_per_token():
    torch.manual_seed(0)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context": 8}
    network = GPT(ModelConfig(language="orbits", vocab_size=10, **shape)).eval()
    ids = np.arange(8, dtype=np.int64)[None]
    targets = np.array([[1, 2, 3, packing.IGNORE, 5, 6, 7, packing.IGNORE]])
    segments = np.array([[0, 0, 0, 0, 1, 1, 1, 1]])
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3]])
    batch = packing.Batch(ids, targets, positions, segments)
    with torch.no_grad():
        logs = torch.log_softmax(
            network(
                torch.from_numpy(ids),
                positions=torch.from_numpy(positions),
                segments=torch.from_numpy(segments),
            )[0],
            dim=-1,
        )
        expected = -sum(float(logs[i, t]) for i, t in enumerate(targets[0]) if t != packing.IGNORE)
        sums = sum_losses(network, batch, CPU, "float32")
        assert sums.n == 6
        assert abs(float(sums.unweighted) - expected) < 1e-4
        weights = torch.zeros(10)
        weights[3] = 2.0
        weighted = sum_losses(network, batch, CPU, "float32", weights=weights)
    assert abs(float(weighted.weighted) + 2 * float(logs[2, 3])) < 1e-4
    assert float(weighted.unweighted) == float(sums.unweighted)
