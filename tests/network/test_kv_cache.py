"""The key-value cache: same logits as without it, ragged rows, dropped rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from crystallm.errors import InputError
from crystallm.network.kv_cache import KVCache
from random_networks import random_ids

if TYPE_CHECKING:
    from crystallm.network.transformer import GPT


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
    tiled = KVCache(network.config, 1, 8, tiled=True)
    with pytest.raises(InputError, match="one of two caches is tiled"):
        tiled.fill_row(0, long)
