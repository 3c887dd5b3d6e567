"""A writer that goes on from beginnings: as if it had written them, and without reading them twice."""

from __future__ import annotations

import math

import pytest
import torch

from crystallm.errors import CrystallmError, InputError
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.sampling.sample import PrefixSampler, sample
from crystallm.sampling.sequence import Stop

V, END = 40, 3
STOP = Stop((END,))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(2)
    made = GPT(ModelConfig(language="x", vocab_size=V, context=64, n_layer=2, n_head=2, n_embd=32)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    return made


@pytest.fixture
def writer(network):
    return PrefixSampler(network, stop=STOP, top_k=None, max_new_tokens=40, batch_size=4)


PROMPTS = [[5], [6, 7], [8, 9, 10], [5], [11], [12]]


def test_from_prompts_it_writes_what_sampling_writes(network, writer):
    expected = list(sample(network, PROMPTS, stop=STOP, top_k=None, max_new_tokens=40, seed=4))
    for _ in range(2):  # again and again
        found = list(writer.sample([(p, len(p)) for p in PROMPTS], seed=4, indices=range(len(PROMPTS))))
        assert [one.ids for one in found] == [one.ids for one in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-4)


def test_a_beginning_counts_as_written(network, writer):
    (whole,) = sample(network, [[5]], stop=STOP, top_k=None, max_new_tokens=40, seed=8)
    assert whole.ended
    cut = len(whole.ids) // 2
    (found,) = writer.sample([(whole.ids[:cut], 1)], seed=8, indices=[3])
    assert found.ids[:cut] == whole.ids[:cut]
    assert found.n_prompt == 1
    assert found.log_probs[: cut - 1] == pytest.approx(whole.log_probs[: cut - 1], abs=1e-4)
    assert len(found.log_probs) == len(found.ids) - 1
    assert not any(map(math.isnan, found.log_probs))
    # A whole text stays as it is.
    (same,) = writer.sample([(whole.ids, 1)], seed=8, indices=[4])
    assert (same.ids, same.ended) == (whole.ids, True)
    assert same.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-3)


def test_a_text_that_fills_the_context_stays_as_it_is(network, writer):
    cut, whole = [5] * 64, [*([5] * 63), END]
    found = list(writer.sample([(cut, 1), (whole, 1), ([5], 1)], seed=8, indices=[0, 1, 2]))
    assert [one.ids for one in found[:2]] == [tuple(cut), tuple(whole)]
    assert [one.ended for one in found[:2]] == [False, True]
    with torch.inference_mode():
        expected = network(torch.tensor([whole]))[0].log_softmax(dim=-1)[range(63), whole[1:]]
    assert found[1].log_probs == pytest.approx(expected.tolist(), abs=1e-3)
    assert len(found[2].ids) > 1
    with pytest.raises(InputError, match="prompt 0 has 65 tokens, the context of 64 takes 64"):
        writer.sample([([5] * 65, 1)], seed=0, indices=[0])
    # A window that slides goes on behind its context.
    sliding = PrefixSampler(network, stop=Stop((END,), slide=True), top_k=None, max_new_tokens=66)
    (found,) = sliding.sample([(cut, 1)], seed=8, indices=[0])
    assert len(found.ids) > 64


def test_peeking_tells_the_networks_probabilities_and_disturbs_nothing(network, writer):
    beginnings = [([5, 9, 11], 1), ([5], 1), ([6, 7], 2), ([6, 7, 1, 2, 4, 8, 9], 2), ([30], 1)]
    before = list(writer.sample([([5], 1)], seed=1, indices=[0]))
    peeked = writer.next_log_probs(beginnings)
    assert peeked.shape == (5, V)
    for (ids, _), row in zip(beginnings, peeked, strict=True):
        with torch.inference_mode():
            expected = network(torch.tensor([ids]))[0, -1].log_softmax(dim=-1)
        assert torch.allclose(row, expected, atol=1e-4)
    assert [one.ids for one in writer.sample([([5], 1)], seed=1, indices=[0])] == [before[0].ids]
    assert writer.next_log_probs([]).shape == (0, V)


def test_a_beginning_is_read_once(network, writer, monkeypatch):
    ids = [5, 9, 11, 12, 13]
    writer.next_log_probs([(ids, 1)])

    def not_again(*_, **__):
        raise AssertionError("it was read before")

    monkeypatch.setattr(network, "features", not_again)
    assert len(list(writer.sample([(ids, 1)] * 3, seed=0, indices=range(3)))) == 3


def test_what_is_out_of_range_is_refused(network, writer):
    for options, said in (({"top_k": 0}, "top_k=0"), ({"batch_size": 0}, "batch_size=0")):
        with pytest.raises(InputError, match=said):
            PrefixSampler(network, stop=STOP, **options)
    with pytest.raises(InputError, match="prompt 0 is empty"):
        writer.sample([([], 0)], seed=0, indices=[0])
    with pytest.raises(InputError, match="the context of 64 takes 63"):
        writer.next_log_probs([([5] * 64, 1)])
    broken = GPT(network.config).eval()
    with torch.no_grad():
        broken.transformer.ln_f.weight.fill_(math.nan)
    with pytest.raises(CrystallmError, match="its weights are broken"):
        PrefixSampler(broken, stop=STOP).next_log_probs([([5], 1)])
