"""Training runs of a tiny network on random data."""

from __future__ import annotations

import json

import numpy as np

from crystallm.models import load
from crystallm.storage import run_folder
from crystallm.training import metrics
from real_crystals import write_split

TINY = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "context": 100, "batch_tokens": 128, "warmup": 3,
    "dtype": "float32", "learning_rate": 1e-2, "dropout": 0.0, "max_updates": 12, "validate_every": 0.25,
}  # fmt: skip


def write_data(folder, seed, vocab_size=40, language="orbits"):
    rng = np.random.default_rng(seed)
    for split, n in (("train", 40), ("val", 6)):
        texts = [rng.integers(40, size=rng.integers(2, 80)) for _ in range(n)]
        write_split(folder, split, texts)
    (folder / run_folder.FACTS).write_text(json.dumps({"language": language, "vocab_size": vocab_size}))
    return folder


def lines(folder):
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")}
        for line in metrics.read(folder)
    ]


def weights(folder, kind):
    return dict(load.load(folder / kind, device="cpu").named_parameters())
