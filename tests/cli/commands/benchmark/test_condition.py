"""`crystallm benchmark condition`."""

from __future__ import annotations

import json

import pytest

from conditioned_networks import conditioned_model
from crystallm.cli.app import run
from crystallm.datasets import prepare
from crystallm.datasets.options import PrepareOptions
from crystallm.models.folder import save
from prepared import write_csv


@pytest.mark.usefixtures("undrawn")
def test_scores_are_printed_and_written(tmp_path, textbook_structures, capsys):
    rows = [(name, crystal.to(fmt="cif"), "val") for name, crystal in textbook_structures.items()]
    path = write_csv(tmp_path / "book.csv", rows, ("material_id", "cif", "split"))
    prepare.prepare([path], tmp_path / "data", PrepareOptions(split_by="given"))
    model = save(conditioned_model().network, tmp_path / "model")
    command = [
        "benchmark",
        "condition",
        str(tmp_path / "data"),
        "--model",
        str(model),
        "--condition",
        "density",
    ]
    command += ["--given", "cell", "--max-new-tokens", "80", "--device", "cpu"]
    assert run([*command, "--out", str(tmp_path / "scores.json")]) == 0
    out = capsys.readouterr().out
    assert "density g/cm^3" in out
    assert "Spearman" in out
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert kept["properties"][0]["n"] == len(kept["samples"]["density"]) == 5
    assert run(["benchmark", "condition"]) == 2
    assert "no data: name a data set of crystallm prepare" in capsys.readouterr().err
