"""`crystallm complete`: the given part, and the options of the whole crystal."""

from __future__ import annotations

from crystallm.cli import app
from crystallm.pipelines import complete as pipeline
from crystallm.pipelines.generate import GenerateResult


def test_the_file_and_the_formula_of_the_whole_reach_the_pipeline(monkeypatch, capsys):
    seen = []

    def run(path, whole, sampling, selection, options, **_):
        seen.append((path, whole, options))
        return GenerateResult(list, {"crystals": 0, "valid": 0, "kept": 0}, str, large=False)

    monkeypatch.setattr(pipeline, "run", run)
    assert (
        app.run(["complete", "FePO4.cif", "--formula", "LiFePO4", "--keep", "orbits", "-n", "4", "--json"])
        == 0
    )
    ((path, whole, options),) = seen
    assert (path, whole.formula, options.keep, options.n) == ("FePO4.cif", "LiFePO4", "orbits", 4)
    assert capsys.readouterr().out == ""


def test_a_missing_part_is_an_error(capsys):
    assert app.run(["complete", "--formula", "LiFePO4"]) == 2
    assert "no crystal: name the file of the given part" in capsys.readouterr().err
