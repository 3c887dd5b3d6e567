"""Tokens drawn from logits: shares, masks, bounds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from crystallm.sampling.token_sampler import TokenSampler, draw_tokens, mask_logits


def frequencies(logits: list[float], **options: Any) -> list[float]:
    """Shares of the tokens over evenly spread uniform numbers."""
    n = 10_000
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens, _ = draw_tokens(torch.tensor(logits).expand(n, -1), uniforms, **{"top_k": None, **options})
    return (torch.bincount(tokens, minlength=len(logits)) / n).tolist()


LOGITS = [math.log(p) for p in (0.1, 0.4, 0.2, 0.3)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        ({"temperature": 1e-30}, [0, 1, 0, 0]),
        ({"temperature": 0}, [0, 1, 0, 0]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.01}, [0, 1, 0, 0]),
        ({"top_p": 0.69}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.71}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_tokens_are_drawn_in_their_shares(options: dict[str, Any], expected: list[float]) -> None:
    assert frequencies(LOGITS, **options) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.71}])
def test_the_interval_of_a_token_holds_the_number_that_draws_it(options: dict[str, Any]) -> None:
    uniforms = torch.linspace(0, 0.999, 500, dtype=torch.float64)
    tokens, intervals = draw_tokens(
        torch.tensor(LOGITS).expand(500, -1), uniforms, **{"top_k": None, **options}
    )
    starts, lengths = intervals.T
    assert bool((starts <= uniforms + 1e-12).all() and (uniforms < starts + lengths + 1e-12).all())
    shares = frequencies(LOGITS, **options)
    assert lengths.tolist() == pytest.approx([shares[token] for token in tokens], abs=2e-4)


@pytest.mark.parametrize("uniform", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_no_uniform_number_draws_a_masked_token(uniform: float) -> None:
    logits = mask_logits(
        torch.randn(2, 50, generator=torch.Generator().manual_seed(0)), [(31,), range(10, 20)]
    )
    tokens, _ = draw_tokens(logits, torch.full((2,), uniform, dtype=torch.float64), top_k=10)
    assert tokens[0] == 31
    assert 10 <= tokens[1] < 20


@pytest.mark.parametrize("n_vocabulary", [5, 100], ids=["a mask", "few of many"])
def test_the_order_of_allowed_tokens_does_not_decide(n_vocabulary: int) -> None:
    logits = torch.tensor([[0.3, -0.2, 0.9, 0.1, 0.4]])
    logits = torch.nn.functional.pad(logits, (0, n_vocabulary - 5), value=-1.0)
    for uniform in (0.05, 0.4, 0.6, 0.95):
        drawn = {
            TokenSampler(n_vocabulary)
            .draw(logits, [allowed], [uniform], temperature=1.0, top_k=None, top_p=None)
            .tokens[0]
            for allowed in itertools.permutations((0, 2, 4))
        }
        probabilities = torch.softmax(logits[0, [0, 2, 4]].double(), dim=0).cumsum(dim=0)
        assert drawn == {(0, 2, 4)[int((probabilities <= uniform).sum())]}


def test_a_mask_leaves_free_rows_and_allowed_tokens_as_they_are() -> None:
    logits = torch.arange(12.0).view(3, 4)
    masked = mask_logits(logits, [None, (0, 3), (2,)])
    inf = math.inf
    assert masked.tolist() == [[0, 1, 2, 3], [4, -inf, -inf, 7], [-inf, -inf, 10, -inf]]
    assert mask_logits(logits, [None] * 3) is logits


@pytest.mark.parametrize("top_k", [None, 1, 4, 40, 200])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1e-30])
def test_compiled_code_draws_the_same_tokens(temperature: float, top_k: int | None) -> None:
    pytest.importorskip("numba")
    n, n_vocabulary = 300, 90
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(n, n_vocabulary, generator=generator)
    logits[::3] = logits[::3].round()  # ties
    uniforms = torch.rand(n, generator=generator, dtype=torch.float64).tolist()
    uniforms[:3] = [0.0, math.nextafter(1.0, 0.0), 0.5]
    allowed: list[Any] = [None, range(10, 70), (31, 5, 80), (7,)] * (n // 4)
    plain, compiled = (
        TokenSampler(n_vocabulary, compiled=way).draw(
            logits, allowed, uniforms, temperature=temperature, top_k=top_k, top_p=None
        )
        for way in (False, True)
    )
    assert compiled.tokens == plain.tokens
    assert torch.tensor(compiled.intervals).allclose(torch.tensor(plain.intervals), atol=1e-6)
    assert len(set(plain.tokens)) > 20
