"""Prompts of a toy vocabulary, and samples drawn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from crystallm.sampling.sample import sample
from crystallm.sampling.sequence import Sample, Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.network.transformer import GPT


V = 60


CONTEXT = 96


NEWLINE, END = 7, 3


CIF = Stop((NEWLINE, NEWLINE), slide=True)


ORBITS = Stop((END,))


def random_prompts(lengths: Sequence[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, V, (n,), generator=generator).tolist() for n in lengths]


PROMPTS = random_prompts([1, 1, 2, 5, 17, 40, 3, 60, 2, 9, 95, 4]) * 3


def draw(network: GPT, prompts: Sequence[Sequence[int]], **options: Any) -> list[Sample]:
    return list(sample(network, prompts, **{"stop": ORBITS, "top_k": 20, "max_new_tokens": 120, **options}))
