"""Plots of losses and event files."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

from crystallm.storage import run_folder
from crystallm.training import loop, metrics
from crystallm.training.recipe import Recipe
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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains a tiny network with these fields; the folder and what was reported."""
    monkeypatch.setattr(metrics, "plot", lambda _: None)
    data = write_data(tmp_path / "data", 0)

    def train(name="run", *, resume=False, data=data, stop=None, **fields):
        budget = {"max_updates": None} if {"max_tokens", "max_minutes"} & fields.keys() else {}
        seen = []

        def report(progress, losses):
            seen.append((progress, losses))
            if progress.update == stop:
                raise KeyboardInterrupt

        recipe = Recipe(**TINY | budget | fields)
        loop.train(recipe, data, tmp_path / name, device="cpu", resume=resume, report=report)
        return tmp_path / name, seen

    return train


def lines(folder):
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")}
        for line in metrics.read(folder)
    ]


def test_the_losses_are_drawn(run, monkeypatch):
    monkeypatch.undo()
    folder, _ = run(max_updates=2, validate_every=0.5)
    assert (folder / metrics.PLOT).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_drawn(run, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    folder, _ = run(max_updates=1)
    assert not (folder / metrics.PLOT).exists()


def test_events_are_written_where_tensorboard_is(run, monkeypatch):
    told = []

    class SummaryWriter:
        def __init__(self, place, *, purge_step):
            told.append((place, purge_step))

        def add_scalar(self, name, value, update):
            told.append((name, value, update))

        def flush(self):
            told.append("flushed")

        close = flush

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    folder, _ = run(max_updates=2, validate_every=0.5)
    first, second = lines(folder)
    assert told[0] == (str(folder / metrics.EVENTS), 1)
    assert {("val_loss", line["val_loss"], line["update"]) for line in (first, second)} <= set(told)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run("without", max_updates=1)
