"""`crystallm generate`: what reaches the pipeline, and what is printed of a run."""

from __future__ import annotations

import json

import pytest

from crystallm.cli import app
from crystallm.crystals.table import COLUMNS
from crystallm.pipelines import generate as pipeline


@pytest.fixture
def calls(monkeypatch):
    """Runs of the pipeline: their options. Each gives two crystals, of which the second is better."""
    seen = []
    row = dict.fromkeys(COLUMNS) | {"request": 0, "text": "", "ended": True, "n_tokens": 9, "cluster_size": 1}
    row |= {"formula": "Ti2O4", "space_group": "P4_2/mnm", "space_group_number": 136, "n_atoms": 6}
    row |= {
        "a": 4.6,
        "b": 4.6,
        "c": 2.96,
        "alpha": 90.0,
        "beta": 90.0,
        "gamma": 90.0,
        "volume_per_atom": 10.4,
    }
    rows = [
        row
        | {
            "sample": i,
            "log_likelihood": i - 9.0,
            "rank": 2 - i,
            "cluster": i,
            "valid": True,
            "plausible": True,
        }
        for i in (0, 1)
    ]

    def run(request, sampling, selection, execution, options, **_):
        seen.append((request, sampling, selection, execution, options))
        counts = pipeline.count_rows(rows, selection) | {"requests": 1}
        return pipeline.GenerateResult(lambda: rows, counts, lambda: "z = 2: cell Ti2O4", large=False)

    monkeypatch.setattr(pipeline, "run", run)
    return seen


def test_flags_and_the_argument_fill_the_option_groups(calls):
    words = [
        "TiO2",
        "-z",
        "2",
        "--temperature",
        "0.7",
        "--best",
        "3",
        "--workers",
        "2",
        "--out",
        "o",
        "--quiet",
    ]
    assert app.run(["generate", *words]) == 0
    ((request, sampling, selection, execution, options),) = calls
    assert (request.formula, request.z, sampling.temperature) == ("TiO2", 2, 0.7)
    assert (selection.best, execution.workers, str(options.out)) == (3, 2, "o")


def test_selected_crystals_are_printed_as_json_or_as_a_table(calls, capsys):
    assert app.run(["generate", "TiO2", "--best", "1", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["sample"] == 1
    assert app.run(["generate", "TiO2"]) == 0
    out = capsys.readouterr().out
    assert "z = 2: cell Ti2O4" in out
    assert "2 crystals, 2 plausible" in out
    assert app.run(["generate", "TiO2", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert len(calls) == 3
