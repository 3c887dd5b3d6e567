"""ModelConfig: bounds, immutability, documented fields."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

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


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def network(request: pytest.FixtureRequest) -> GPT:
    return build(form=request.param)


@pytest.mark.parametrize(
    "fields",
    [
        {"n_head": 3},
        {"form": "llama", "bias": True},
        {"form": "llama", "n_embd": 6, "n_head": 2},
        {"form": "bert"},
        {"unknown": 1},
        {"dropout": 1.0},
        {"vocab_size": 0},
        {"n_layer": 0},
        {"language": ""},
    ],
)
def test_impossible_configs_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ModelConfig.model_validate({"language": "orbits", "vocab_size": 50, **fields})


def test_config_is_frozen_and_every_field_is_explained(network: GPT) -> None:
    with pytest.raises(ValidationError):
        network.config.n_layer = 3  # type: ignore[misc]
    assert all(field.description for field in ModelConfig.model_fields.values())
