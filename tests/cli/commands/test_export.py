from __future__ import annotations

import csv
import json

import pytest

from crystallm.cli import app


@pytest.fixture
def cifs(tmp_path, monkeypatch, textbook_structures):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifs").mkdir()
    for name, structure in textbook_structures.items():
        structure.to(filename=f"cifs/{name}.cif", fmt="cif")
    (tmp_path / "cifs" / "torn.cif").write_text("data_\n_cell_length_a 3\n")


@pytest.mark.usefixtures("cifs")
def test_a_collection_is_exported_and_what_is_left_out_listed(tmp_path, capsys):
    assert app.run(["export", "cifs", "--to", "csv", "--out", "all.csv"]) == 0
    out = capsys.readouterr().out
    assert "5 crystals; all.csv" in out
    assert "torn left out" in out
    with (tmp_path / "all.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5
    assert app.run(["export", "cifs", "--to", "poscar", "--out", "poscars", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["crystals"], [part["id"] for part in record["skipped"]]) == (5, ["torn"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "no crystals"),
        (["export", "cifs"], "no format: say --to"),
        (["export", "cifs", "--to", "xyz"], "to = 'xyz'"),
        (["export", "gone", "--to", "cif"], "no file or folder 'gone'"),
    ],
)
@pytest.mark.usefixtures("cifs")
def test_wrong_options_are_one_line(capsys, arguments, message):
    assert app.run(arguments) == 2
    assert message in capsys.readouterr().err
