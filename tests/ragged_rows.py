"""Rows of different lengths in one pass, and the same rows alone."""

from __future__ import annotations

import numpy as np
import torch

from crystallm.network import ragged
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT

VOCABULARY, CONTEXT = 50, 160


def network(form: str, dtype: torch.dtype = torch.float32) -> GPT:
    torch.manual_seed(0)
    config = ModelConfig(
        language="orbits",
        form=form,
        vocab_size=VOCABULARY,
        n_layer=2,
        n_head=2,
        n_embd=32,
        context=CONTEXT,
    )
    return GPT(config).eval().to(dtype)


def write(net: GPT, steps: list[list[int]], seed: int = 0) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Rows that grow by so many tokens at each step, and what the network made of the last of each."""
    rng = np.random.default_rng(seed)
    n_rows = len(steps[0])
    reader, cache = ragged.RaggedNetwork(net), net.new_cache(n_rows, CONTEXT)
    cache.set_lengths([0] * n_rows)
    rows: list[list[int]] = [[] for _ in range(n_rows)]
    last: list[torch.Tensor] = []
    with torch.inference_mode():
        for lengths in steps:
            tokens = [rng.integers(VOCABULARY, size=n).tolist() for n in lengths]
            runs = reader.runs(tokens, cache)
            found = reader.features(runs, cache)
            for row, run in zip(rows, tokens, strict=True):
                row.extend(run)
            assert cache.lengths == tuple(map(len, rows))
            last = [found[start : start + len(run)] for start, run in zip(runs.starts, tokens, strict=True)]
    return rows, last


def assert_as_alone(net: GPT, steps: list[list[int]], tolerance: float = 1e-5) -> None:
    rows, last = write(net, steps)
    for row, found in zip(rows, last, strict=True):
        with torch.inference_mode():
            alone = net.features(torch.tensor([row]))[0, -len(found) :]
        assert (found - alone).abs().max() < tolerance
