"""A fixture that trains a tiny network."""

from __future__ import annotations

import pytest

from crystallm.training import loop, metrics
from crystallm.training.recipe import Recipe
from tiny_runs import TINY, write_data


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
