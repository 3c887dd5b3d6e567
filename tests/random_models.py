"""Models with random weights."""

from __future__ import annotations

import torch

from crystallm import language
from crystallm.models.model import Model
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT


def random_model(name, form, bias=False):
    """A network whose weights, biases and norms are all far from where networks begin."""
    tongue = language.get_language(name)
    config = ModelConfig(
        language=name,
        form=form,
        vocab_size=len(tongue.vocabulary()),
        context=96,
        n_layer=2,
        n_head=2,
        n_embd=24,
        bias=bias,
    )
    torch.manual_seed(5)
    network = GPT(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        network.transformer.wte.weight.mul_(6)  # likeliest tokens are far ahead of the next: no ties
    return Model("random", network, tongue, config, {"summary": "random", "data": [{"name": "none"}]})


def babbler(name, context=200, seed=3, scale=20):
    """A network that has learned nothing, with weights large enough that it has opinions."""
    tongue = language.get_language(name)
    config = ModelConfig(
        language=name,
        vocab_size=len(tongue.vocabulary()),
        context=context,
        n_layer=1,
        n_head=2,
        n_embd=16,
    )
    torch.manual_seed(seed)
    network = GPT(config).eval()
    with torch.no_grad():
        network.transformer.wte.weight.mul_(scale)
    return Model("babbler", network, tongue, config)
