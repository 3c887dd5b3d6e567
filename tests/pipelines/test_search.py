"""`crystallm search`: its tables, files, plots and refusals."""

from __future__ import annotations

import json

import pytest
from pyarrow import parquet
from pymatgen.core import Structure

from crystallm.cli import app
from crystallm.crystals import annotation
from crystallm.errors import CrystallmError
from crystallm.structure_search import search


@pytest.fixture
def asked(parrot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [
        "search", "TiO2", "--z", "2", "--energy", "energies:morse", "--model", str(parrot), "--seed", "1",
        "--temperature", "1.5", "--device", "cpu",
    ]  # fmt: skip


def test_a_search_writes_tables_crystals_and_plots_and_goes_further(asked, tmp_path, capsys):
    assert app.run([*asked, "--simulations", "8", "--baseline", "sampling", "--out", "run"]) == 0
    shown = capsys.readouterr().out
    assert "eV/atom" in shown
    assert "plain sampling: 8 simulations" in shown
    run = tmp_path / "run"
    for folder in (run, run / "sampling"):
        rows = parquet.read_table(folder / "results.parquet").to_pylist()
        assert [row["simulation"] for row in rows] == list(range(8))
        valid = [row for row in rows if row["plausible"] and row["equals"] is None]
        assert {row["file"] for row in valid} == {path.name for path in (folder / "cifs").iterdir()}
        for row in valid:
            cell = Structure.from_file(folder / "cifs" / row["file"])
            assert len(cell) == row["n_atoms"]
    for name in ("best_by_calls.png", "best_by_seconds.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    summary = json.loads((run / "search.json").read_text())
    assert summary["lowest"] == min(
        row["energy"] for row in parquet.read_table(run / "results.parquet").to_pylist() if row["energy"]
    )
    assert summary["baseline"]["method"] == "sampling"
    # The same folder goes further with a higher bound, and takes no other question.
    assert app.run([*asked, "--simulations", "12", "--out", "run", "--json"]) == 0
    best = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in best] == list(range(1, len(best) + 1))
    further = parquet.read_table(run / "results.parquet").to_pylist()
    assert [row["text"] for row in further[:8]] == [
        row["text"] for row in parquet.read_table(run / "sampling/results.parquet").to_pylist()
    ]  # the search begins with samples
    assert len(further) == 12
    assert app.run([*asked, "--simulations", "12", "--out", "run", "--method", "tree"]) == 2
    assert "holds another run (search was" in capsys.readouterr().err


def test_what_was_found_is_written_before_it_is_related(asked, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise CrystallmError("no space left")

    monkeypatch.setattr(annotation, "add_relative_energies", full)
    assert app.run([*asked, "--simulations", "4", "--formation-energy", "--out", "run"]) == 1
    assert "no space left" in capsys.readouterr().err
    assert len(parquet.read_table(tmp_path / "run/results.parquet").to_pylist()) == 4


def test_an_energy_model_that_fails_is_told_of(asked, monkeypatch, capsys):
    monkeypatch.setattr(search, "GIVE_UP", 2)
    asked[asked.index("energies:morse")] = "energies:nan"
    assert app.run([*asked, "--simulations", "30"]) == 0
    shown = capsys.readouterr().out
    assert "no plausible crystal with an energy" in shown
    assert "stopped early: energies:nan gave no energy for the last" in shown
    asked[asked.index("energies:nan")] = "energies:unloadable"
    assert app.run(asked) == 1
    assert "the weights are gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--width", "0"], "width = '0'"),
        (["--simulations", "0"], "simulations = '0'"),
        (["--minutes", "-1"], "minutes = '-1'"),
        (["--top-p", "2"], "top_p = '2'"),
        (["--workers", "0"], "workers = '0'"),
        (["--space-group", "Fm-3m"], "cannot fill Fm-3m"),
        (["--method", "sampling", "--rollouts", "2"], "rollouts = 2 of plain sampling"),
        (["--preset", "theirs"], "theirs"),
    ],
)
def test_bad_questions_are_refused_in_one_line(asked, capsys, options, said):
    assert app.run([*asked, *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_energy_model_that_is_not_there_is_refused(asked, capsys):
    asked[asked.index("energies:morse")] = "dft"
    assert app.run(asked) == 2
    assert "no energy model 'dft'" in capsys.readouterr().err


def test_a_search_without_z_says_which_it_tries(asked, capsys):
    without = [part for part in asked if part not in ("--z", "2")]
    assert app.run([*without, "--simulations", "1"]) == 0
    assert capsys.readouterr().out.startswith("TiO2, Z = 2 (100 %)")


def test_without_a_formula_there_is_nothing_to_search(capsys):
    assert app.run(["search"]) == 2
    assert "search for what? Give a formula" in capsys.readouterr().err
