"""Plots of losses and event files."""

from __future__ import annotations

import sys
import types

from crystallm.training import metrics
from tiny_runs import lines


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
