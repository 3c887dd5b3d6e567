"""Conditions change the logits, unknown ones do not, and segments have their own."""

from __future__ import annotations

import math

import pytest
import torch

from conditioned_networks import SCALES, conditioned_network
from crystallm.errors import InputError
from crystallm.network.conditions import ConditionEmbedding, guide
from random_networks import build

NAN = math.nan


def test_an_unknown_value_adds_nothing_and_a_known_one_does():
    embedding = ConditionEmbedding(SCALES, 8)
    torch.nn.init.normal_(embedding.weight, std=0.1)
    unknown, known, both = embedding(torch.tensor([[NAN, NAN], [4.0, NAN], [4.0, 2.0]]))
    assert torch.equal(unknown, torch.zeros(16))
    assert known.abs().sum() > 0
    assert not torch.allclose(known, both)


def test_new_vectors_are_zero_so_that_fine_tuning_starts_as_the_model_was():
    embedding = ConditionEmbedding(SCALES, 8)
    assert torch.equal(embedding(torch.tensor([[4.0, 2.0]])), torch.zeros(1, 16))


def test_near_values_have_near_vectors():
    embedding = ConditionEmbedding(SCALES[:1], 64)
    torch.nn.init.normal_(embedding.weight, std=0.1)
    at, near, far = embedding(torch.tensor([[5.0], [5.05], [8.0]]))
    assert (at - near).norm() < 0.2 * (at - far).norm()


@pytest.mark.parametrize("form", ["gpt2", "llama"])
def test_each_segment_has_its_own_values(form):
    network = conditioned_network(form)
    ids = torch.arange(12)[None]
    segments = torch.tensor([[0] * 5 + [1] * 4 + [-1] * 3])
    values = torch.tensor([[[4.0, NAN], [NAN, 2.0]]])
    packed = network(ids, segments=segments, conditions=values)
    first = network(ids[:, :5], conditions=values[:, :1])
    second = network(ids[:, 5:9], conditions=values[:, 1:])
    torch.testing.assert_close(packed[:, :5], first)
    torch.testing.assert_close(packed[:, 5:9], second)
    assert not torch.allclose(first, network(ids[:, :5]))


def test_a_network_without_conditions_rejects_them():
    with pytest.raises(InputError, match="no conditions"):
        build()(torch.zeros(1, 3, dtype=torch.long), conditions=torch.zeros(1, 1, 1))


def test_guidance_of_1_is_the_conditions_alone_and_of_0_none():
    logits, plain = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 3.0]])
    assert torch.equal(guide(logits, plain, 1.0), logits)
    assert torch.equal(guide(logits, plain, 0.0), plain)
    assert torch.equal(guide(logits, plain, 2.0), torch.tensor([[2.0, 1.0]]))
