"""A network whose distributions are peaked."""

from __future__ import annotations

import pytest
import torch

from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from toy_sampling import CONTEXT, V


@pytest.fixture(scope="module")
def network() -> GPT:
    """Random weights, so large that its distributions are peaked and depend on what came before."""
    torch.manual_seed(1)
    network = GPT(
        ModelConfig(language="x", vocab_size=V, context=CONTEXT, n_layer=3, n_head=4, n_embd=64)
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    return network
