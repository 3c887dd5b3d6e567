"""`crystallm solve`: its table, its files and its refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pymatgen.core import Structure

import known_crystals
import powder_patterns
from crystallm.cli import app


@pytest.fixture
def asked(tmp_path, monkeypatch, inline, undrawn):
    monkeypatch.chdir(tmp_path)
    pattern = powder_patterns.measured(powder_patterns.rutile())
    impurity = 800 * np.exp(-(((pattern.two_theta - 33.2) / 0.06) ** 2))
    np.savetxt("rutile.xy", np.column_stack([pattern.two_theta, pattern.intensity + impurity]))
    known_crystals.library().write(tmp_path / "library.parquet")
    return ["solve", "rutile.xy", "--from", "references", "--references", "library.parquet", "--workers", "1"]


def test_answers_are_written_with_charts_and_curves(asked, tmp_path, capsys):
    assert app.run([*asked, "--formula", "TiO2", "--answers", "2", "--out", "out"]) == 0
    shown = capsys.readouterr().out
    assert "rutile.xy, CuKa: fits" in shown
    assert "P4_2/mnm (136)" in shown
    assert "unexplained, perhaps of an impurity: 33.2" in shown
    out = tmp_path / "out"
    summary = json.loads((out / "solution.json").read_text())
    assert summary["fits"]
    first = summary["answers"][0]
    assert first["rwp"] < 0.3
    assert [round(peak["two_theta"], 1) for peak in first["unexplained"]] == [33.2]
    assert Structure.from_file(out / "cifs" / f"{first['file']}.cif").composition.reduced_formula == "TiO2"
    assert (out / "plots" / f"{first['file']}.png").exists()
    curves = np.loadtxt(out / "curves" / f"{first['file']}.csv", delimiter=",", skiprows=1)
    assert curves[:, 1] - curves[:, 2] == pytest.approx(curves[:, 4], abs=0.1)
    assert (out / "answers.csv").read_text().startswith("rank,formula,space_group")


def test_json_has_a_line_for_the_summary_and_each_answer(asked, capsys):
    assert app.run([*asked, "--formula", "TiO2", "--answers", "1", "--json"]) == 0
    summary, answer = map(json.loads, capsys.readouterr().out.splitlines())
    assert summary["wavelengths"] == [1.54056, 1.54439]
    assert (answer["rank"], answer["space_group_number"], answer["refined"]) == (1, 136, True)
    assert "data_Ti2O4" in answer["cif"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solve"], "no pattern: name its file"),
        (["solve", "missing.xy", "--formula", "TiO2"], "there is no such file"),
        (["solve", "rutile.xy"], "no formula"),
        (["solve", "rutile.xy", "--formula", "TiO2", "--wavelength", "15"], "0.05 to 10"),
    ],
)
def test_refusals_are_one_line(asked, words, message, capsys):
    assert app.run(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
