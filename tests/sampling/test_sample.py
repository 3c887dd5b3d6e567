"""Sampling: the same samples in any batch, likelihoods, grammars, queues, errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from conditioned_networks import conditioned_network
from crystallm.errors import CrystallmError, InputError
from crystallm.network import kernels
from crystallm.network.conditions import guide, value_tensor
from crystallm.network.config import ModelConfig
from crystallm.network.ragged import RaggedNetwork
from crystallm.network.transformer import GPT
from crystallm.sampling.sample import check_request, sample, sample_stream, serve
from crystallm.sampling.sequence import DecodingOptions, Sample, SequenceRequest, Stop
from toy_sampling import CIF, CONTEXT, END, ORBITS, PROMPTS, V, draw, random_prompts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.network.kv_cache import KVCache
    from crystallm.network.ragged import Runs


# Each of the two languages ends and outgrows its context in its own way.


class OnlyEven:
    """Rules of a toy language: `n` even tokens, then the end, and nothing behind it."""

    def __init__(self, n: int, stop: Stop = ORBITS) -> None:
        self.n = n
        self.end = stop.end_ids

    def start(self, prompt: Sequence[int]) -> OnlyEvenState:
        return OnlyEvenState(self.n, self.end)


class OnlyEvenState:
    def __init__(self, n: int, end: tuple[int, ...]) -> None:
        self.offers = [range(0, V, 2)] * n + [(token,) for token in end]

    def allowed(self) -> Sequence[int] | None:
        return self.offers[0]

    def advance(self, token: int) -> None:
        assert token in self.offers.pop(0)


class Listed:
    """Rules that offer the given lists, one after the other, the same for every text."""

    def __init__(self, *offers: Sequence[int] | None) -> None:
        self.offers = offers

    def start(self, prompt: Sequence[int]) -> ListedState:
        return ListedState(self.offers)


class ListedState:
    def __init__(self, offers: Sequence[Sequence[int] | None]) -> None:
        self.left = list(offers)

    def allowed(self) -> Sequence[int] | None:
        return self.left[0]

    def advance(self, token: int) -> None:
        self.left.pop(0)


@pytest.mark.parametrize("stop", [CIF, ORBITS], ids=["cif", "orbits"])
@pytest.mark.parametrize("ruled", [False, True], ids=["free", "ruled"])
def test_samples_do_not_depend_on_the_batch(network: GPT, stop: Stop, ruled: bool) -> None:
    grammar = OnlyEven(11, stop) if ruled else None
    options = {"stop": stop, "grammar": grammar, "seed": 4, "max_new_tokens": 60}
    one, *others = (draw(network, PROMPTS, batch_size=n, **options) for n in (1, 7, 32))
    assert [s.number for s in one] == list(range(len(PROMPTS)))
    for other in others:
        assert [s.ids for s in other] == [s.ids for s in one]
        assert [s.ended for s in other] == [s.ended for s in one]
        assert [s.log_likelihood for s in other] == pytest.approx([s.log_likelihood for s in one], abs=1e-3)
    # The comparison means something only if texts differ, in length too.
    assert len({s.generated for s in one}) == len(PROMPTS)
    assert len({len(s.ids) for s in one}) > 5


def test_a_sample_depends_on_seed_index_and_prompt_alone(network: GPT) -> None:
    prompt = PROMPTS[3]
    many = draw(network, [prompt] * 12, seed=9)
    assert len({s.ids for s in many}) == 12
    again = draw(network, [prompt, PROMPTS[5], prompt], seed=9, indices=[7, 0, 2])
    assert again[0].ids == many[7].ids
    assert again[2].ids == many[2].ids
    assert again[0].index == 7
    assert draw(network, [prompt], seed=10)[0].ids != many[0].ids


def test_the_global_random_state_is_left_alone(network: GPT) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    draw(network, PROMPTS[:3])
    assert torch.equal(torch.rand(2), expected)


@torch.no_grad()
@pytest.mark.parametrize("rules", [None, OnlyEven(11)], ids=["free", "ruled"])
def test_log_likelihood_is_the_unconstrained_networks(network: GPT, rules: OnlyEven | None) -> None:
    for s in draw(network, PROMPTS[:8], temperature=0.7, top_k=3, top_p=0.9, grammar=rules):
        log_probs = network(torch.tensor([s.ids]))[0].log_softmax(-1)  # (T, V)
        expected = [log_probs[s.n_prompt - 1 + i, token].item() for i, token in enumerate(s.generated)]
        assert s.log_probs == pytest.approx(expected, abs=1e-4)
        assert s.log_likelihood == pytest.approx(sum(expected), abs=1e-3)


@torch.no_grad()
def test_temperature_0_is_greedy(network: GPT) -> None:
    a, b = draw(network, [PROMPTS[4]] * 2, temperature=0, max_new_tokens=15)
    assert a.ids == b.ids
    following = network(torch.tensor([a.ids]))[0].argmax(-1).tolist()
    assert list(a.generated) == following[a.n_prompt - 1 : -1]


@torch.no_grad()
def test_a_sliding_row_drops_its_oldest_tokens_and_goes_on(network: GPT) -> None:
    prompt = random_prompts([CONTEXT])[0]
    (s,) = draw(network, [prompt], stop=Stop((END,) * 99, slide=True), temperature=0, max_new_tokens=12)
    ids = list(prompt)
    for _ in range(12):
        ids.append(int(network(torch.tensor([ids[-CONTEXT:]]))[0, -1].argmax()))
    assert list(s.ids) == ids
    assert not s.ended


def test_rules_hold_token_by_token(network: GPT) -> None:
    for s in draw(network, PROMPTS[:9], grammar=OnlyEven(11), temperature=2.0, top_k=None):
        assert s.ended
        assert all(token % 2 == 0 for token in s.generated[:-1])
        assert len(s.generated) == 12


def test_top_k_is_taken_among_the_allowed(network: GPT) -> None:
    worst = torch.topk(network(torch.tensor([[1]]))[0, -1], 3, largest=False).indices.tolist()
    drawn = {s.generated[0] for s in draw(network, [[1]] * 60, grammar=Listed(worst, (END,)), top_k=2)}
    assert drawn <= set(worst)
    assert len(drawn) == 2


def test_progress_counts_texts_and_tokens(network: GPT) -> None:
    calls: list[tuple[int, int]] = []
    samples = draw(network, PROMPTS[:10], batch_size=3, progress=lambda *counts: calls.append(counts))
    assert [n for n, _ in calls] == list(range(1, 11))
    assert calls[-1][1] == sum(len(s.generated) for s in samples)


def test_prompts_are_read_once(network: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[list[int]] = []
    runs = RaggedNetwork.runs

    def spy(self: RaggedNetwork, tokens: Sequence[Sequence[int]], cache: KVCache) -> Runs:
        lengths.append([len(run) for run in tokens])
        return runs(self, tokens, cache)

    monkeypatch.setattr(RaggedNetwork, "runs", spy)
    draw(network, [PROMPTS[5]] * 20 + [PROMPTS[4]] * 20, batch_size=4, max_new_tokens=3)
    assert [each for each in lengths if max(each) > 1] == [[len(PROMPTS[5]) - 1, len(PROMPTS[4]) - 1]]


def test_no_prompts_no_samples(network: GPT) -> None:
    assert draw(network, []) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"seed": -1}, "not -1"),
        ({"seed": 2**64}, "must lie in"),
        ({"indices": [1, 2]}, "2 indices for 1 prompts"),
        ({"stop": Stop(())}, "end_ids is empty"),
        ({"prompts": [[]]}, "prompt 0 is empty"),
        ({"prompts": [[1], [V]]}, "prompt 1 has a token outside 0 ... 59"),
        ({"prompts": [[-1]]}, "outside"),
        ({"prompts": [[1] * CONTEXT]}, "has 96 tokens, the context of 96 takes 95"),
        ({"prompts": [[1] * (CONTEXT + 1)], "stop": CIF}, "takes 96"),
    ],
)
def test_wrong_requests_are_refused_at_once(network: GPT, options: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {"prompts": [[1]], "stop": ORBITS, **options}
    with pytest.raises(InputError, match=match):
        sample(network, arguments.pop("prompts"), **arguments)


def test_a_network_in_training_mode_is_refused(network: GPT) -> None:
    network.train()
    try:
        with pytest.raises(InputError, match="training mode"):
            sample(network, [[1]], stop=ORBITS)
    finally:
        network.eval()


def test_broken_weights_are_named() -> None:
    network = GPT(ModelConfig(language="x", vocab_size=9, context=8, n_layer=1, n_head=1, n_embd=8)).eval()
    with torch.no_grad():
        network.transformer.ln_f.weight.fill_(math.nan)
    with pytest.raises(CrystallmError, match="not finite"):
        draw(network, [[1]])


def test_without_rules_texts_come_in_the_networks_shares(network: GPT) -> None:
    """Pairs of tokens against their exact probabilities: chi-square over the likeliest, and the rest."""
    prompt, n = [11, 5], 8000
    with torch.no_grad():
        first = torch.softmax(network(torch.tensor([prompt]))[0, -1].double(), -1)  # (V,)
        behind = torch.tensor([[*prompt, token] for token in range(V)])
        exact = first[:, None] * torch.softmax(network(behind)[:, -1].double(), -1)  # (V, V)
    exact[END, :] = 0  # a text that has ended has no second token
    found = torch.zeros(V, V)
    for one in draw(network, [prompt] * n, top_k=None, max_new_tokens=2, batch_size=200, seed=3):
        if len(one.generated) == 2:
            found[one.generated] += 1
    expected = n * exact.flatten()
    likeliest = expected.argsort(descending=True)[:20]
    chi = float(((found.flatten()[likeliest] - expected[likeliest]) ** 2 / expected[likeliest]).sum())
    assert expected[likeliest].min() > 5
    assert chi < 45.3  # 20 degrees of freedom, p = 0.001
    rest = n * float(exact.sum()) - float(expected[likeliest].sum())
    others = float(found.sum() - found.flatten()[likeliest].sum())
    assert abs(others - rest) < 3.5 * math.sqrt(rest)


class OneAfterAnother:
    """A line of drafts that is closed behind the last, and wants all but some."""

    def __init__(self, drafts: Sequence[SequenceRequest], unwanted: Sequence[SequenceRequest] = ()) -> None:
        self.left = list(drafts)
        self.unwanted = set(unwanted)
        self.waited = 0

    def next(self, *, wait: bool) -> SequenceRequest | None:
        self.waited += wait
        return self.left.pop(0) if self.left else None

    def is_active(self, draft: SequenceRequest) -> bool:
        return draft not in self.unwanted


def mixed_drafts() -> list[SequenceRequest]:
    """Drafts that differ in options, seeds, lengths and rules, one beside the other."""
    ways = [
        DecodingOptions(ORBITS, 1.0, 20, None, 60),
        DecodingOptions(ORBITS, 0.4, None, 0.9, 25),
        DecodingOptions(CIF, 0.0, 5, None, 40),
        DecodingOptions(ORBITS, 1.0, 20, None, 60),
    ]
    rules = [None, None, None, OnlyEven(11)]
    return [
        SequenceRequest(prompt, ways[i % 4], seed=i % 3, index=i, grammar=rules[i % 4])
        for i, prompt in enumerate(PROMPTS)
    ]


@pytest.fixture(scope="module")
def alone(network: GPT) -> dict[SequenceRequest, Sample]:
    """What `sample` gives for each of the mixed drafts when it is asked for nothing else."""
    found = {}
    for draft in mixed_drafts():
        options = draft.options
        (found[draft],) = sample(
            network,
            [draft.prompt],
            stop=options.stop,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            seed=draft.seed,
            indices=[draft.index],
            grammar=draft.grammar,
        )
    return found


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_a_line_gives_what_sample_gives(
    network: GPT, alone: dict[SequenceRequest, Sample], batch_size: int
) -> None:
    found = dict(serve(network, OneAfterAnother(list(alone)), batch_size=batch_size))
    assert len(found) == len(alone)
    for draft, one in alone.items():
        assert found[draft].ids == one.ids
        assert found[draft].forced == one.forced
        assert found[draft].ended == one.ended


def test_what_is_not_wanted_any_more_makes_place_for_the_others(network: GPT) -> None:
    drafts = mixed_drafts()
    dropped = drafts[::2]
    line = OneAfterAnother(drafts, dropped)
    found = [draft for draft, _ in serve(network, line, batch_size=4)]
    assert sorted(found, key=drafts.index) == drafts[1::2]
    assert line.waited >= 1  # it asked for more before it ended


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (SequenceRequest([], DecodingOptions(ORBITS)), "is empty"),
        (SequenceRequest([V], DecodingOptions(ORBITS)), "outside 0"),
        (SequenceRequest([1], DecodingOptions(ORBITS, temperature=-1)), "temperature=-1 must be 0 or more"),
        (SequenceRequest([1], DecodingOptions(ORBITS, max_new_tokens=0)), "max_new_tokens=0"),
        (SequenceRequest([1] * CONTEXT, DecodingOptions(ORBITS)), "tokens, the context of"),
        (SequenceRequest([1], DecodingOptions(ORBITS), seed=-1), "seed and indices"),
    ],
)
def test_a_draft_that_cannot_be_written_is_refused(
    network: GPT, draft: SequenceRequest, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_request(network, draft)


def test_a_few_texts_are_written_without_what_has_to_be_compiled(network, monkeypatch):
    asked = []
    monkeypatch.setattr(kernels, "available", lambda _: bool(asked.append(1)))
    draw(network, [[1]] * 7, max_new_tokens=4)
    assert not asked
    draw(network, [[1]] * 8, max_new_tokens=4, batch_size=1)
    assert asked


# --- conditions ---


@pytest.fixture(scope="module")
def conditioned():
    return conditioned_network(vocab_size=V, context=CONTEXT)


GIVEN = [(4.0, None), (9.0, 3.0), (), (None, 0.5)]
"""Values of density and band gap; all, some or none are unknown."""


def reference(network, ids, values, guidance):
    """Logits of the next token, without a cache."""
    with torch.inference_mode():
        tokens = torch.tensor([ids])
        plain = network(tokens)[0, -1]
        if not values:
            return plain
        with_values = network(tokens, conditions=value_tensor([values], 2, "cpu"))[0, -1]
        return guide(with_values, plain, guidance)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_each_row_of_a_batch_follows_its_own_conditions(conditioned, batch_size, guidance):
    prompts = [[5], [5], [6, 7, 8], [5], [9, 9], [6, 7, 8], [5], [4]]
    given = (GIVEN * 2)[: len(prompts)]
    samples = draw(
        conditioned, prompts, conditions=given, guidance=guidance, temperature=0, max_new_tokens=20,
        batch_size=batch_size,
    )  # fmt: skip
    for found, values in zip(samples, given, strict=True):
        for cut in range(found.n_prompt, len(found.ids)):
            logits = reference(conditioned, found.ids[:cut], values, guidance)
            assert logits.max() - logits[found.ids[cut]] < 1e-3


def test_log_probabilities_are_those_given_the_conditions_without_guidance(conditioned):
    (found,) = draw(conditioned, [[5, 6]], conditions=[(4.0, 1.0)], guidance=3.0, max_new_tokens=10)
    ids = torch.tensor([found.ids])
    with torch.inference_mode():
        logits = conditioned(ids, conditions=value_tensor([(4.0, 1.0)], 2, "cpu"))[0].log_softmax(-1)
    expected = [float(logits[k - 1, found.ids[k]]) for k in range(2, len(found.ids))]
    assert found.log_probs == pytest.approx(expected, abs=1e-3)


def test_a_sliding_sequence_keeps_its_conditions(conditioned):
    long = [list(range(10)) * 9 + [1, 2, 3, 4, 5]]
    one, other = (
        draw(conditioned, long, stop=CIF, conditions=[values], guidance=2.0, temperature=0, max_new_tokens=9)[
            0
        ]
        for values in ((4.0, None), (9.0, 3.0))
    )
    assert one.ids != other.ids
    logits = reference(conditioned, one.ids[-1 - CONTEXT : -1], (4.0, None), 2.0)
    assert logits.max() - logits[one.ids[-1]] < 1e-3


def test_a_wrong_number_of_conditions_is_an_error(conditioned, network):
    with pytest.raises(InputError, match="1 conditions for a network with 2"):
        draw(conditioned, [[5]], conditions=[(4.0,)])
    with pytest.raises(InputError, match="2 conditions for a network with 0"):
        draw(network, [[5]], conditions=[(4.0, None)])
    with pytest.raises(InputError, match="guidance=-1"):
        draw(conditioned, [[5]], conditions=[(4.0, None)], guidance=-1)


def test_others_wait_until_the_first_sequences_are_ready(network: GPT) -> None:
    """A long first sequence, many short ones: those that are not urgent do not share its time."""
    options = DecodingOptions(ORBITS)
    drawn: list[int] = []

    def requests() -> Iterator[SequenceRequest]:
        for i in range(40):
            drawn.append(i)
            yield SequenceRequest(PROMPTS[0], options, 3, i, OnlyEven(25 if i == 2 else 2))

    n_drawn, found = [], []
    for n_urgent in (0, 4):
        drawn.clear()
        stream = sample_stream(network, requests(), n=40, batch_size=8, n_urgent=n_urgent)
        found.append([next(stream) for _ in range(4)])
        n_drawn.append(len(drawn))
        found[-1] += stream
    assert n_drawn == [40, 6]  # 4, and one for each of the two that were ready before the long one
    assert [one.ids for one in found[0]] == [other.ids for other in found[1]]
    assert [one.index for one in found[0]] == list(range(40))
