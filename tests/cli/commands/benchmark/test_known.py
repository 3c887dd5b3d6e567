"""`crystallm benchmark compounds` and `classes`."""

from __future__ import annotations

import csv
import json

import pytest

from crystallm.cli.app import run


@pytest.fixture
def shelf(tmp_path, textbook_structures):
    """The textbook as a folder of CIFs and as a table."""
    (tmp_path / "cifs").mkdir()
    with (tmp_path / "book.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "name", "seen", "cif"])
        for name, structure in textbook_structures.items():
            (tmp_path / "cifs" / f"{name}.cif").write_text(structure.to(fmt="cif"))
            seen = {"rutile": "false", "diamond": ""}.get(name, "True")
            writer.writerow([name, f"{name} [book]", seen, structure.to(fmt="cif")])
    return tmp_path


def command(*words: object) -> int:
    return run(["benchmark", *map(str, words)])


@pytest.mark.usefixtures("kept")
def test_a_model_that_knows_the_book_finds_the_book(shelf, parrot, capsys):
    options = ("-n", 2, "--model", parrot, "--temperature", 0.01, "--workers", 1, "--device", "cpu")
    assert command("compounds", shelf / "book.csv", *options, "--out", shelf / "scores.json") == 0
    out = capsys.readouterr().out
    kept = json.loads((shelf / "scores.json").read_text())
    for way in ("composition", "group"):
        shares = kept["prompts"][way]
        assert shares["all"] == {"n": 5, "success": 1.0, "match": 1.0, "loose_match": 1.0}
        assert (shares["seen"]["n"], shares["unseen"]["n"]) == (3, 1)
    assert len(kept["compounds"]) == 10
    rows = [row for row in kept["compounds"] if row["id"] == "rutile"]
    assert [row["prompt"] for row in rows] == ["composition", "group"]
    assert {(row["space_group"], row["likeliest_group"], row["n_valid"]) for row in rows} == {
        ("P4_2/mnm", "P4_2/mnm", 2)
    }
    assert "book.csv, 5 compounds, n = 2" in out
    assert "rutile [book]" in out


@pytest.mark.usefixtures("kept")
def test_one_way_of_asking_some_of_the_file_as_json(shelf, parrot, capsys):
    options = ("-n", 1, "--prompt-with", "group", "--limit", 2, "--workers", 1, "--device", "cpu", "--json")
    assert command("compounds", shelf / "cifs", *options, "--model", parrot) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["prompts"].keys() == {"group"}
    assert summary["prompts"]["group"].keys() == {"all"}
    assert summary["prompts"]["group"]["all"]["n"] == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--prompt-with", "poetry"), "poetry"),
        (("-n", 0), "n = '0': input should be greater than or equal to 1"),
        (("--limit", -1), "limit = '-1': input should be greater than or equal to 1"),
        (("--temperature", -1.0), "temperature = "),
        (("nowhere.csv",), "nowhere.csv"),
    ],
)
def test_bad_options_are_one_line(options, says, capsys):
    assert command("compounds", *options) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_the_modules_load_no_heavy_library():
    import subprocess
    import sys

    code = "import sys, crystallm.cli.commands.benchmark.known; h = "
    code += "{'pymatgen.core', 'torch', 'spglib', 'numpy'}; "
    code += "print(sorted(h & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(
        "formula,class,a,c,split\nTiO2,rutile,4.594,2.958,train\nSrTiO3,perovskite,4.005,,test\n"
        "BaTiO3,perovskite,4.0,,train\n"
    )
    return path


def test_a_model_that_knows_the_book_knows_its_classes(own, parrot, capsys, tmp_path):
    options = ("-n", 2, "--model", parrot, "--temperature", 0.01, "--device", "cpu")
    assert command("classes", own, *options, "--out", tmp_path / "scores.json") == 0
    out = capsys.readouterr().out
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert kept["classes"]["all"]["rutile"]["found"] == 1.0
    assert kept["classes"]["all"]["rutile"]["mae"]["a"] < 0.05
    unseen = kept["classes"]["unseen"]["perovskite"]
    assert (unseen["n"], unseen["found"], unseen["r2"]["a"]) == (1, 1.0, None)
    assert unseen["mae"]["a"] == pytest.approx(0.1, abs=0.05)
    rows = {row["formula"]: row for row in kept["formulas"]}
    assert rows["SrTiO3"]["n_found"] == 2
    assert rows["SrTiO3"]["known"] == {"a": 4.005}
    assert "own.csv, 3 formulas, n = 2" in out
    assert "perovskite" in out


def test_one_class_as_json(own, parrot, capsys):
    options = ("--classes", "rutile", "-n", 1, "--model", parrot, "--device", "cpu", "--json")
    assert command("classes", own, *options) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["classes"]["all"].keys() == {"rutile"}
    assert summary["classes"]["unseen"] == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--classes", "rutile,quartz"), "no class 'quartz': there are rutile, spinel"),
        (("-n", 0), "n = '0': input should be greater than or equal to 1"),
        (("--limit", 0), "limit = '0': input should be greater than or equal to 1"),
        (("--constraints", "some"), "some"),
    ],
)
def test_bad_options_are_one_line_of_classes(options, says, capsys):
    assert command("classes", *options) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
