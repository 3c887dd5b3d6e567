"""A model: network, language, fingerprint of the weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from crystallm.models.load import load_model
from crystallm.models.model import Model

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_model_is_a_network_with_its_language() -> None:
    model = load_model(GOLDEN / "checkpoint_nobias")
    assert isinstance(model, Model)
    assert (model.name, model.language.name, model.card) == ("checkpoint_nobias", "cif", {})
    assert model.network.config is model.config
    assert len(model.language.vocabulary()) == model.config.vocab_size


def test_the_fingerprint_is_of_all_weights() -> None:
    model = load_model(GOLDEN / "checkpoint_nobias")
    assert replace(model, name="same weights").fingerprint == model.fingerprint
    for name, _ in model.network.named_parameters():
        network = copy.deepcopy(model.network)
        with torch.no_grad():
            weights = network.get_parameter(name)
            weights[(-1,) * weights.dim()] += 1e-3
        assert replace(model, weights=network).fingerprint != model.fingerprint, name
