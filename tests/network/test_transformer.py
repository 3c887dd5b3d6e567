"""The network's arithmetic: golden logits, packing, and the cache against the plain forward pass."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from crystallm.errors import InputError
from crystallm.network import attention
from crystallm.network.attention import segment_mask, segment_positions
from crystallm.network.config import ModelConfig
from crystallm.network.kv_cache import KVCache
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


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


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


@torch.no_grad()
def test_logits_do_not_look_ahead(network: GPT) -> None:
    ids = random_ids(1, 20)
    changed = ids.clone()
    changed[0, 12] = (ids[0, 12] + 1) % 50
    before, after = network(ids), network(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-2)


@torch.no_grad()
def test_packed_crystals_do_not_see_each_other(network: GPT) -> None:
    lengths = (7, 20, 13)
    crystals = [random_ids(1, n, seed=n) for n in lengths]
    ids = torch.cat([*crystals, torch.zeros(1, 8, dtype=torch.long)], dim=1)  # (1, 48), 8 of padding
    segments = torch.tensor([[i for i, n in enumerate(lengths) for _ in range(n)] + [-1] * 8])
    packed = network(ids, segments=segments)
    assert packed.isfinite().all()
    start = 0
    for crystal in crystals:
        stop = start + crystal.shape[1]
        assert torch.allclose(packed[:, start:stop], network(crystal), atol=1e-4)
        start = stop


def test_a_row_of_padding_alone_gives_finite_gradients() -> None:
    network = build().train()
    segments = torch.tensor([[0] * 8, [-1] * 8])
    network(random_ids(2, 8), segments=segments)[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_positions_restart_with_each_segment() -> None:
    segments = torch.tensor([[0, 0, 0, 1, 1, -1], [4, 5, 5, 5, 6, 6]])
    assert segment_positions(segments).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 0, 1]]
    assert segment_mask(segments)[0, 0, 4].tolist() == [False, False, False, True, True, False]


@torch.no_grad()
def test_given_positions_count(network: GPT) -> None:
    ids = random_ids(1, 5)
    assert torch.equal(network(ids, positions=torch.arange(5)[None]), network(ids))
    assert not torch.allclose(network(ids, positions=torch.arange(5)[None] * 3), network(ids), atol=1e-2)
    shifted = network(ids, positions=torch.arange(3, 8)[None])
    assert torch.allclose(shifted, network(ids), atol=1e-3) == (network.config.form == "llama")


@torch.no_grad()
@pytest.mark.parametrize("steps", [[20], [1] * 20, [5, 1, 1, 6, 7]])
def test_cached_logits_equal_plain_ones(network: GPT, steps: list[int]) -> None:
    ids = random_ids(3, 20)
    cache = network.new_cache(3, 20)
    pieces = [network(piece, cache=cache) for piece in ids.split(steps, dim=1)]
    assert cache.lengths == (20, 20, 20)
    assert torch.allclose(torch.cat(pieces, dim=1), network(ids), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("n_new", [1, 3])
def test_ragged_rows_go_on_each_from_its_own_end(network: GPT, n_new: int) -> None:
    texts = [random_ids(1, n + n_new, seed=n) for n in (2, 11, 5)]
    cache = network.new_cache(3)
    cache.set_lengths([])
    for row, text in enumerate(texts):
        prompt = network.new_cache(1, 16)
        network(text[:, :-n_new], cache=prompt)
        cache.fill_row(row, prompt)
    logits = network(torch.cat([text[:, -n_new:] for text in texts]), cache=cache)
    assert cache.lengths == tuple(text.shape[1] for text in texts)
    for row, text in enumerate(texts):
        assert torch.allclose(logits[row], network(text)[0, -n_new:], atol=1e-4)


@torch.no_grad()
def test_rows_left_after_a_drop_keep_their_texts(network: GPT) -> None:
    ids = random_ids(5, 9)
    cache = network.new_cache(5, 10)
    network(ids[:, :8], cache=cache)
    order = cache.drop_rows([0, 3])
    assert sorted(order) == [1, 2, 4]
    assert cache.n_rows == 3
    cache.grow(40)
    assert cache.capacity == 40
    assert torch.allclose(network(ids[order, 8:], cache=cache)[:, 0], network(ids)[order, 8], atol=1e-4)
    assert cache.drop_rows(range(3)) == []


@torch.no_grad()
def test_padding_behind_a_prompt_can_be_forgotten(network: GPT) -> None:
    ids = random_ids(2, 10)
    cache = network.new_cache(2, 12)
    network(ids, cache=cache)
    cache.set_lengths([4, 10])
    new = random_ids(2, 1, seed=3)
    expected = network(torch.cat([ids[:1, :4], new[:1]], dim=1))[0, -1]
    assert torch.allclose(network(new, cache=cache)[0, -1], expected, atol=1e-4)


def test_what_does_not_fit_is_refused(network: GPT) -> None:
    with pytest.raises(InputError, match="65 tokens are more than the context of 64"):
        network(random_ids(1, 65))
    cache = network.new_cache(2, 4)
    with pytest.raises(InputError, match="do not fit a cache"):
        network(random_ids(2, 5), cache=cache)
    with pytest.raises(InputError, match="exclude each other"):
        network(random_ids(2, 3), cache=cache, segments=torch.zeros(2, 3))
    with pytest.raises(InputError, match="row=3"):
        cache.fill_row(3, cache)
    small, long = KVCache(network.config, 1, 4), KVCache(network.config, 1, 8)
    long.set_lengths([6])
    with pytest.raises(InputError, match="does not fit"):
        small.fill_row(0, long)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_dropout_drops_its_share_keeps_the_mean_and_follows_the_seed(dtype, share) -> None:
    x = torch.full((7, 11, 999), 2.0, dtype=dtype, requires_grad=True)
    torch.manual_seed(1)
    found = attention.dropout(x, share)
    torch.manual_seed(1)
    assert torch.equal(attention.dropout(x, share), found)
    assert not torch.equal(attention.dropout(x, share), found)
    assert found.dtype == dtype
    gone = found == 0
    assert gone.float().mean().item() == pytest.approx(share, abs=0.01)
    assert gone.float().mean(dim=(0, 1)).std() < 0.1  # in no column more than in others
    kept = found[~gone].float()
    assert (kept == kept[0]).all()
    assert kept[0].item() == pytest.approx(2 / (1 - share), rel=0.01)
    found.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, gone)


@pytest.mark.parametrize("form", ["gpt2", "llama"])
@pytest.mark.parametrize("packed", [False, True])
def test_plain_attention_in_training_equals_the_kernel(
    packed: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(form=form).train()
    ids = random_ids(3, 24)
    segments = torch.tensor([[0] * 10 + [1] * 10 + [-1] * 4] * 3) if packed else None
    logits, gradients = [], []
    for limit in (0, 256):
        monkeypatch.setattr(attention, "PLAIN_TOKENS", limit)
        network.zero_grad()
        out = network(ids, segments=segments)
        out.logsumexp(-1).sum().backward()
        logits.append(out.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert torch.allclose(*logits, atol=1e-4)
    assert torch.allclose(*gradients, atol=1e-3, rtol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(network(ids, segments=segments).float(), logits[0], atol=0.3)


@torch.no_grad()
def test_packing_changes_the_layout_alone() -> None:
    network = build()
    ids = random_ids(1, 10)
    before, shapes = network(ids), {name: p.shape for name, p in network.named_parameters()}
    network.pack()
    assert torch.allclose(network(ids), before, atol=1e-5)
    assert {name: p.shape for name, p in network.named_parameters()} == shapes
    assert network.transformer.h[0].mlp.c_fc.weight.stride() == (1, 128)
