"""Small networks with random weights, and random tokens for them."""

from __future__ import annotations

import torch

from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT


def build(seed: int = 0, **fields: object) -> GPT:
    torch.manual_seed(seed)
    defaults = {
        "language": "orbits",
        "vocab_size": 50,
        "context": 64,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
    }
    network = GPT(ModelConfig.model_validate({**defaults, **fields})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # Larger than the first weights of training, so that a mistake in attention shows in the logits.
            parameter.normal_(std=0.3) if parameter.dim() == 2 else parameter.add_(0.1)
    return network


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))
