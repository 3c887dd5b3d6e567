"""The state of a sequence: ends, limits, forced tokens, backtracking."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from crystallm.errors import InputError
from crystallm.sampling.sample import sample_stream
from crystallm.sampling.sequence import (
    DecodingOptions,
    RandomNumbers,
    SequenceRequest,
    Stop,
    TokenSequence,
    check_prompt,
    uniform_stream,
)
from toy_sampling import CIF, CONTEXT, END, NEWLINE, ORBITS, PROMPTS, V, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.network.transformer import GPT


# Each of the two languages ends and outgrows its context in its own way.


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


def test_texts_end_with_generated_tokens_only(network: GPT) -> None:
    newline_then_all = Listed((NEWLINE,), (NEWLINE,), (5,), (5,))
    prompt = [1, NEWLINE]
    (s,) = draw(network, [prompt], stop=CIF, grammar=newline_then_all)
    assert (s.ended, s.generated) == (True, (NEWLINE, NEWLINE))
    (s,) = draw(network, [[1, END]], grammar=Listed((4,), (END,)))
    assert (s.ended, s.ids, s.n_prompt) == (True, (1, END, 4, END), 2)


def test_texts_without_an_end_stop_at_the_limit(network: GPT) -> None:
    for s in draw(network, PROMPTS[:4], max_new_tokens=6, stop=Stop((END,) * 7)):
        assert (s.ended, len(s.generated)) == (False, 6)


def test_a_row_that_reaches_the_context_stays_unfinished(network: GPT) -> None:
    never = Stop((END,) * 99)
    for s in draw(network, PROMPTS[:12], stop=never, max_new_tokens=500):
        assert (s.ended, len(s.ids)) == (False, CONTEXT)


def test_a_text_that_the_rules_leave_without_a_token_is_unfinished(network: GPT) -> None:
    (s,) = draw(network, [[1, 2]], grammar=Listed((4,), ()))
    assert (s.ended, s.generated) == (False, (4,))
    dead, alive = Listed(()), draw(network, [[1, 2]] * 3, grammar=None)
    assert [s.generated for s in draw(network, [[1, 2]] * 3, grammar=dead)] == [()] * 3
    assert all(s.generated for s in alive)


class SecondThoughts:
    """Rules that take the last three tokens back at the 5th and the 9th; `n` tokens in all."""

    def start(self, prompt: Sequence[int]) -> SecondThoughtsState:
        return SecondThoughtsState(len(prompt))


class SecondThoughtsState:
    def __init__(self, row: int) -> None:
        self.length = 0
        self.left = {5: 1 + row % 2, 9: 2}

    def allowed(self) -> Sequence[int] | None:
        return (END,) if self.length == 12 else [t for t in range(V) if t != END]

    def advance(self, token: int) -> int:
        self.length += 1
        if self.left.get(self.length, 0):
            self.left[self.length] -= 1
            self.length -= 3
            return 3
        return 0


def test_tokens_taken_back_leave_no_trace(network: GPT) -> None:
    """What is written behind a taken-back token is as likely as the network says without it."""
    prompts = PROMPTS[:9]
    samples = draw(network, prompts, grammar=SecondThoughts(), batch_size=4)
    for prompt, found in zip(prompts, samples, strict=True):
        if len(prompt) + 13 > CONTEXT:
            continue
        assert found.ended
        assert len(found.generated) == 13
        ids = torch.tensor([found.ids])
        with torch.no_grad():
            expected = torch.log_softmax(network(ids[:, :-1])[0], dim=-1)
        expected = expected.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
        assert torch.allclose(torch.tensor(found.log_probs), expected, atol=1e-4)
    again = draw(network, prompts, grammar=SecondThoughts(), batch_size=1)
    assert [s.ids for s in again] == [s.ids for s in samples]


def test_each_token_takes_a_random_number_forced_or_not() -> None:
    """So what a grammar forces does not shift the numbers of what is drawn behind it."""
    options = DecodingOptions(ORBITS)
    for ruled, n_forced in ((Listed((5, 6)), 0), (Listed((4,), (5,), (6, 7)), 2)):
        request = SequenceRequest([1, 2], options, seed=3, index=8, grammar=ruled)
        sequence = TokenSequence.from_request(0, request)
        sequence.start(CONTEXT)
        assert len(sequence.ids) == 2 + n_forced
        assert next(sequence.numbers) == list(itertools.islice(uniform_stream(3, 8), 3))[n_forced]


SHARES = [0.5, 0.3, 0.15, 0.05]


def written(point: float | None, n: int, seed: int = 0) -> tuple[int, ...]:
    """n tokens of these shares, drawn by a point."""
    numbers = RandomNumbers(uniform_stream(seed, 0), point)
    ends = list(itertools.accumulate(SHARES))
    text = []
    for _ in range(n):
        number = next(numbers)
        token = next(i for i, end in enumerate(ends) if number < end)
        numbers.drew(ends[token] - SHARES[token], SHARES[token])
        text.append(token)
    return tuple(text)


@pytest.mark.parametrize("n", [4, 20, 500])
def test_samples_at_evenly_spread_points_begin_in_proportion(n: int) -> None:
    texts = [written((i + 0.5) / n, 4) for i in range(n)]
    for length in range(1, 5):
        counts = Counter(text[:length] for text in texts)
        for beginning in itertools.product(range(4), repeat=length):
            expected = n * math.prod(SHARES[token] for token in beginning)
            if math.prod(SHARES[token] for token in beginning[:-1]) > 1 / 256:
                assert abs(counts[beginning] - expected) < 1, beginning


def test_each_sample_of_a_point_is_a_fair_draw_to_its_end() -> None:
    points = np.random.default_rng(0).random(2000)
    texts = [written(point, 60, seed) for seed, point in enumerate(points)]  # beyond the digits of a point
    for place in (0, 1, 10, 20, 40, 59):
        counts = Counter(text[place] for text in texts)
        for token, share in enumerate(SHARES):
            assert abs(counts[token] - 2000 * share) < 5 * math.sqrt(2000 * share * (1 - share)), place
        if place:
            pairs = Counter(text[place - 1 : place + 1] for text in texts)
            assert abs(pairs[0, 0] - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75), place


def test_without_a_point_all_numbers_are_independent() -> None:
    numbers = RandomNumbers(uniform_stream(5, 2))
    expected = list(itertools.islice(uniform_stream(5, 2), 6))
    assert next(numbers) == expected[0]
    numbers.drew(0.0, 0.1)
    numbers.skip()
    assert next(numbers) == expected[2]


def test_forced_tokens_are_told_from_drawn_ones(network: GPT) -> None:
    ruled = Listed((4,), (5, 6, 7), (8,), (9,), (10, 11), (END,))
    (one,) = draw(network, [[1, 2]], grammar=ruled)
    assert one.forced == (True, False, True, True, False, True)
    (free,) = draw(network, [[1, 2]], max_new_tokens=5)
    assert not any(free.forced)


@pytest.mark.parametrize("n", [8, 64])  # by torch, and compiled
def test_a_network_spreads_samples_over_what_it_finds_probable(network: GPT, n: int) -> None:
    options = DecodingOptions(ORBITS, temperature=0.8, top_k=None, max_new_tokens=3)
    requests = (SequenceRequest([1, 2], options, 1, i, point=(i + 0.5) / n) for i in range(n))
    counts = Counter(sample.generated[0] for sample in sample_stream(network, requests, n=n))
    with torch.no_grad():
        shares = torch.softmax(network(torch.tensor([[1, 2]]))[0, -1] / 0.8, dim=-1).tolist()
    assert all(abs(counts[token] - n * share) < 1.001 for token, share in enumerate(shares))


def test_what_is_read_before_the_prompt_changes_the_text_and_is_no_part_of_it(network: GPT) -> None:
    prompts: list[Sequence[int]] = []

    class Seen(Listed):
        def start(self, prompt: Sequence[int]) -> ListedState:
            prompts.append(tuple(prompt))
            return super().start(prompt)

    options = DecodingOptions(ORBITS, top_k=None, max_new_tokens=8)
    grammar = Seen(*[None] * 9)
    whole, read, alone = sample_stream(
        network,
        [
            SequenceRequest([4, 9, 1, 2], options, seed=3),
            SequenceRequest([1, 2], options, seed=3, grammar=grammar, context=[4, 9]),
            SequenceRequest([1, 2], options, seed=3),
        ],
        n=3,
    )
    assert read.generated == whole.generated
    assert (read.ids[:2], read.n_prompt, read.log_probs) == ((1, 2), 2, whole.log_probs)
    assert prompts == [(1, 2)]
    assert read.log_probs != alone.log_probs


def test_what_is_read_counts_for_the_context(network: GPT) -> None:
    request = SequenceRequest([1, 2], DecodingOptions(ORBITS), context=[4] * (CONTEXT - 2))
    with pytest.raises(InputError, match=f"prompt 0 has {CONTEXT} tokens, the context of {CONTEXT} takes"):
        check_prompt(network, 0, request)
