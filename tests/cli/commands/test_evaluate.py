from __future__ import annotations

import json

import pytest

from crystallm.cif import writer
from crystallm.cli import app
from crystallm.storage import tables


@pytest.fixture
def crystals(tmp_path, monkeypatch, textbook_structures, inline, undrawn):
    monkeypatch.chdir(tmp_path)
    for name in ("rocksalt", "rutile"):
        (tmp_path / "cifs").mkdir(exist_ok=True)
        text = writer.to_cif(writer.to_text(textbook_structures[name]))
        (tmp_path / "cifs" / f"{name}.cif").write_text(text)
    (tmp_path / "cifs" / "torn.cif").write_text("data_\n_cell_length_a 3\n")


@pytest.mark.usefixtures("crystals")
def test_totals_are_printed_or_given_as_json(capsys):
    assert app.run(["evaluate", "cifs", "--workers", "1", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    assert "cifs: 3 crystals" in printed
    assert "report: out/report.html" in printed
    assert app.run(["evaluate", "cifs", "--workers", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["valid"] == 2
    assert app.run(["evaluate", "--path", "cifs", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("crystals")
def test_options_may_come_from_a_file(tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("path: cifs\nworkers: 1\nread-as: text\nout: out\n")
    assert app.run(["evaluate", "--config", "options.yaml", "--quiet"]) == 0
    config = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (config["command"], config["read_as"]) == ("evaluate", "text")
    assert app.run(["evaluate", "--config", "options.yaml", "--read-as", "auto"]) == 2
    assert 'read_as was "text", now "auto"' in capsys.readouterr().err


@pytest.mark.usefixtures("crystals")
def test_scores_are_printed_and_stored(tmp_path, capsys, parrot):
    command = ["score", "cifs", "--model", str(parrot), "--device", "cpu", "--out", "scores.parquet"]
    assert app.run(command) == 0
    assert "3 crystals, 2 scored" in capsys.readouterr().out
    rows = tables.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["nats"] is None for row in rows] == [False, False, True]
