"""Networks with two conditions and random weights."""

from __future__ import annotations

import torch

from crystallm.language import get_language
from crystallm.models.model import Model
from crystallm.network.config import ConditionScale, ModelConfig
from crystallm.network.transformer import GPT

SCALES = (
    ConditionScale("density", "g/cm^3", mean=5.0, deviation=2.0, lowest=1.0, highest=12.0),
    ConditionScale("band_gap", "eV", mean=1.0, deviation=1.5, lowest=0.0, highest=8.0),
)


def conditioned_network(form="llama", vocab_size=60, context=96, language="orbits", scales=SCALES):
    torch.manual_seed(1)
    network = GPT(
        ModelConfig(
            language=language,
            form=form,
            vocab_size=vocab_size,
            context=context,
            n_layer=2,
            n_head=2,
            n_embd=32,
            condition_scales=scales,
        )
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
            elif parameter.dim() == 3:
                parameter.normal_(std=0.03)
    return network


def conditioned_model(context=400):
    language = get_language("orbits")
    network = conditioned_network(vocab_size=len(language.vocabulary()), context=context)
    return Model("conditioned", network, language, network.config)
