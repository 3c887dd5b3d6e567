"""The transformer: size, initialization, causality, both forms, packed weights."""

from __future__ import annotations

import pytest
import torch

from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from random_networks import build, random_ids


def test_small_network_has_the_size_of_the_paper() -> None:
    with torch.device("meta"):
        network = GPT(ModelConfig(language="cif", vocab_size=371))
    assert round(network.num_parameters() / 1e6, 1) == 25.4


def test_first_weights_are_gpt2s() -> None:
    torch.manual_seed(0)
    network = GPT(ModelConfig(language="x", vocab_size=100, n_layer=8, n_head=4, n_embd=128, bias=True))
    block = network.transformer.h[0]
    assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.c_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)  # sqrt(2 * 8) = 4
    assert block.attn.c_attn.bias.abs().max() == 0
    assert (block.ln_1.weight == 1).all()


def test_head_is_tied_to_the_token_embeddings(network: GPT) -> None:
    assert network.lm_head.weight is network.transformer.wte.weight


@torch.no_grad()
def test_logits_do_not_look_ahead(network: GPT) -> None:
    ids = random_ids(1, 20)
    changed = ids.clone()
    changed[0, 12] = (ids[0, 12] + 1) % 50
    before, after = network(ids), network(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-2)


@torch.no_grad()
def test_given_positions_count(network: GPT) -> None:
    ids = random_ids(1, 5)
    assert torch.equal(network(ids, positions=torch.arange(5)[None]), network(ids))
    assert not torch.allclose(network(ids, positions=torch.arange(5)[None] * 3), network(ids), atol=1e-2)
    shifted = network(ids, positions=torch.arange(3, 8)[None])
    assert torch.allclose(shifted, network(ids), atol=1e-3) == (network.config.form == "llama")


@torch.no_grad()
def test_the_second_form_is_llama_by_its_equations() -> None:
    network = build(form="llama", n_layer=1)
    ids, block = random_ids(1, 7), network.transformer.h[0]
    x = network.transformer.wte(ids)[0].double()  # (T, C)

    def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()

    def turned(head: torch.Tensor) -> torch.Tensor:  # (T, D) as complex numbers, entries i and i + D / 2
        places, halves = torch.arange(7.0, dtype=torch.double), torch.arange(8.0, dtype=torch.double)
        angles = places[:, None] * 10000.0 ** (-halves / 8)
        return torch.complex(head[:, :8], head[:, 8:]) * torch.polar(torch.ones_like(angles), angles)

    out = []
    for head in (
        (normed(x, block.ln_1.weight) @ block.attn.c_attn.weight.T.double()).view(7, 3, 2, 16).unbind(2)
    ):
        queries, keys = turned(head[:, 0]), turned(head[:, 1])
        scores = (queries @ keys.conj().T).real / 16**0.5
        scores = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), float("-inf"))
        out.append(scores.softmax(-1) @ head[:, 2])
    x = x + torch.cat(out, -1) @ block.attn.c_proj.weight.T.double()
    gate, value = (normed(x, block.ln_2.weight) @ block.mlp.c_fc.weight.T.double()).chunk(2, -1)
    x = x + (gate * gate.sigmoid() * value) @ block.mlp.c_proj.weight.T.double()
    expected = normed(x, network.transformer.ln_f.weight) @ network.lm_head.weight.T.double()
    assert torch.allclose(network(ids)[0].double(), expected, atol=1e-4)


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    network = build(dropout=0.5)
    ids = random_ids(1, 10)
    assert torch.equal(network(ids), network(ids))
    network.train()
    assert not torch.equal(network(ids), network(ids))


@torch.no_grad()
def test_packing_changes_the_layout_alone() -> None:
    network = build()
    ids = random_ids(1, 10)
    before, shapes = network(ids), {name: p.shape for name, p in network.named_parameters()}
    network.pack()
    assert torch.allclose(network(ids), before, atol=1e-5)
    assert {name: p.shape for name, p in network.named_parameters()} == shapes
    assert network.transformer.h[0].mlp.c_fc.weight.stride() == (1, 128)
