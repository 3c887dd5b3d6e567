from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from crystallm.cli import app
from crystallm.cli.commands.prepare import print_report
from crystallm.datasets.report import PreparationReport


@pytest.fixture
def book(tmp_path, monkeypatch, textbook_structures, undrawn):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "book.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "cif"])
        writer.writerows((name, structure.to(fmt="cif")) for name, structure in textbook_structures.items())
        writer.writerow(["noise", "noise"])


@pytest.mark.usefixtures("book")
def test_a_data_set_is_prepared_and_its_prompts_written(tmp_path, capsys):
    assert app.run(["prepare", "book.csv=test", "--out", "data", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "data: 5 of 6 rows" in out
    assert "1 rows rejected (rejected.parquet)" in out
    assert app.run(["prepare", "book.csv=test", "--out", "data", "--workers", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["written"], record["crystals"]) == (5, {"train": 0, "val": 0, "test": 5})
    assert app.run(["prompts", "data", "--with-group", "--out", "p.csv"]) == 0
    assert "5 prompts in p.csv" in capsys.readouterr().out
    with (tmp_path / "p.csv").open(newline="") as file:
        groups = [row["space_group"] for row in csv.DictReader(file)]
    assert groups == ["Fm-3m", "P4_2/mnm", "Pm-3m", "P6_3mc", "Fd-3m"]


@pytest.mark.usefixtures("book")
def test_lists_may_come_from_a_file(tmp_path, capsys):
    (tmp_path / "o.yaml").write_text(
        "inputs: [book.csv]\nout: data\nlanguage: none\nexclude: [book.csv]\nexclude-by: [id]\nworkers: 1\n"
    )
    assert app.run(["prepare", "--config", "o.yaml", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["written"], record["rejected"]) == (0, {"read": 1, "exclude": 5})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare"], "no input"),
        (["prepare", "book.csv"], "--out is missing"),
        (["prepare", "book.csv", "--out", "d", "--val-fraction", "2.5"], "write a fraction"),
        (["prompts"], "no crystals"),
        (["prompts", "book.csv"], "--out is missing"),
        (["prompts", "--out", "p.csv"], "no crystals"),
        (["prompts", "book.csv", "--out", "p.txt"], "ends in .csv"),
    ],
)
@pytest.mark.usefixtures("book")
def test_wrong_options_are_one_line(capsys, arguments, message):
    assert app.run(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("n", "said"), [(2, "10.0"), (0, "-")])
def test_a_report_counts_crystals_tokens_and_rejections(capsys, n, said):
    reasons = {"encode: [no] symmetry": 3}
    report = PreparationReport("orbits", n + 7, {"train": n}, {"train": 10 * n}, {"encode": 3}, 4, reasons)
    print_report(report, Path("data"))
    out = capsys.readouterr().out
    assert said in out
    assert f"{n} of {n + 7} rows" in out
    assert "4 duplicates dropped" in out
    assert "3 rows rejected" in out
    assert "3  encode: [no] symmetry" in out
