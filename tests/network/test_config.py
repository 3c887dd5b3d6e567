"""ModelConfig: bounds, immutability, documented fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from crystallm.network.config import ModelConfig

if TYPE_CHECKING:
    from crystallm.network.transformer import GPT


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
        {"n_layer": 10**5},
        {"n_embd": 10**9, "n_head": 1},
        {"n_layer": 1000, "n_embd": 8192},
        {"context": 10**21},
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
