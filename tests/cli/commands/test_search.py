"""`crystallm search`: its options, and its progress in a line."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from crystallm.cli import app
from crystallm.cli.commands.search import progress_line
from crystallm.pipelines import search as pipeline
from crystallm.structure_search.results import State


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (State(0, 0, 0, 0, None, 0.0), "0 simulations, 0 energies, no energy yet, nothing sampled, "),
        (
            State(40, 9, 40, 30, -9.25, 20.0),
            "40 simulations, 9 energies, best -9.2500 eV/atom, 75% plausible, 2.0 simulations/s",
        ),
    ],
)
def test_progress_is_one_line(state, line):
    assert progress_line(state) == line


def test_flags_of_a_method_fill_its_group(monkeypatch, capsys):
    seen = []

    def run(cell, options, sampling, relative, run_options, **given):
        seen.append((cell, options, given["workers"]))
        return SimpleNamespace(rows=[{"formula": "Ti2O4"}], summary={})

    monkeypatch.setattr(pipeline, "run", run)
    words = ["TiO2", "--z", "2", "--method", "tree", "--width", "4", "--energy-calls", "9", "--json"]
    assert app.run(["search", *words]) == 0
    ((cell, options, workers),) = seen
    assert (cell.formula, cell.z, options.method, options.tree.width) == ("TiO2", 2, "tree", 4)
    assert (options.energy_calls, options.max_simulations, workers) == (9, None, 1)
    assert json.loads(capsys.readouterr().out) == {"formula": "Ti2O4"}


def test_options_of_another_method_are_an_error(capsys):
    assert app.run(["search", "TiO2", "--method", "sampling", "--width", "4"]) == 2
    assert "width = 4 has no effect with method = 'sampling'" in capsys.readouterr().err
