"""Attention: segments, positions, dropout, plain products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from crystallm.network import attention
from crystallm.network.attention import segment_mask, segment_positions
from random_networks import build, random_ids

if TYPE_CHECKING:
    from crystallm.network.transformer import GPT


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
