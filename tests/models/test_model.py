"""A model: network, language, fingerprint of the weights."""

from __future__ import annotations

from pathlib import Path

from crystallm.models.load import load_model
from crystallm.models.model import Model

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_model_is_a_network_with_its_language() -> None:
    model = load_model(GOLDEN / "checkpoint_nobias")
    assert isinstance(model, Model)
    assert (model.name, model.language.name, model.card) == ("checkpoint_nobias", "cif", {})
    assert model.network.config is model.config
    assert len(model.language.vocabulary()) == model.config.vocab_size
