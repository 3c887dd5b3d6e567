"""Energies counted from the elements, and from the hull of known entries."""

from __future__ import annotations

import importlib.util
import json

import pytest
from pyarrow import parquet
from pymatgen.core import Composition

from crystallm.cli import app
from crystallm.thermodynamics import reference_crystals
from crystallm.thermodynamics.relative_energies import RelativeEnergies

pytestmark = pytest.mark.usefixtures("kept")


needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


ENTRIES = [("Ti", -7.0), ("O2", -5.0), ("TiO2", -9.0), ("Ti2O3", -9.1)]


@pytest.fixture
def hull_file(tmp_path):
    path = tmp_path / "entries.csv"
    lines = [f"{formula},{energy}" for formula, energy in ENTRIES]
    path.write_text("\n".join(["composition,energy_per_atom", *lines]) + "\n")
    return path


def test_a_hull_without_an_element_tells_nothing_and_says_so_once(hull_file, caplog):
    relation = RelativeEnergies("energies:morse", formation=False, hull=str(hull_file))
    for _ in range(2):
        assert relation.columns(Composition("ZrO2"), -9.0) == {"formation_energy": None, "e_above_hull": None}
    assert relation.columns(Composition("TiO2"), -8.9)["e_above_hull"] == pytest.approx(0.1)
    assert [record.getMessage().count("no entry of the element Zr") for record in caplog.records] == [1]


@needs_ase
def test_commands_tell_both(parrot, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSTALLM_CACHE", str(tmp_path / "cache"))
    # Known here, so that no reference is relaxed.
    kept = tmp_path / "cache/references/energies_morse.json"
    kept.parent.mkdir(parents=True)
    energies = {"O": -1.0, "Ti": -2.0}
    kept.write_text(json.dumps({"version": reference_crystals.VERSION, "energies": energies}))
    (tmp_path / "e.csv").write_text("composition,energy_per_atom\nTi,-1\nO2,-1\nTiO2,-2\n")
    common = ["--energy", "energies:morse", "--model", str(parrot), "--seed", "1", "--device", "cpu"]
    columns = ["--formation-energy", "--hull", "e.csv"]
    asked = ["TiO2", "--z", "2", *common, *columns]
    assert app.run(["generate", *asked, "-n", "2", "--out", "generated"]) == 0
    shown = capsys.readouterr().out
    assert "formation" in shown
    assert "above hull" in shown
    assert app.run(["search", *asked, "--simulations", "4", "--out", "searched"]) == 0
    assert "above hull" in capsys.readouterr().out
    settled = ["relax", "generated/cifs", "--energy", "energies:morse", "--steps", "10", "--workers", "1"]
    assert app.run([*settled, "--out", "relaxed", *columns]) == 0
    assert "formation" in capsys.readouterr().out
    for folder in ("generated", "searched", "relaxed"):
        for row in parquet.read_table(tmp_path / folder / "results.parquet").to_pylist():
            if row["energy"] is not None:
                assert row["formation_energy"] == pytest.approx(row["energy"] + 4 / 3)
                assert row["e_above_hull"] == pytest.approx(row["energy"] + 2)
    # Entries without titanium: a search is refused before it begins, crystals that are there are relaxed.
    (tmp_path / "few.csv").write_text("composition,energy_per_atom\nO2,-1\n")
    few = ["--hull", "few.csv"]
    for asked in (["search", "TiO2"], ["generate", "TiO2", "--z", "auto"]):
        assert app.run([*asked, *common, *few, "--out", "refused"]) == 2
        assert "'few.csv' has no entry of the element Ti:" in capsys.readouterr().err
        assert not (tmp_path / "refused").exists()
    # Of a list, some formulas may have all of theirs: it is told which have not.
    (tmp_path / "formulas.csv").write_text("formula,z\nTiO2,2\nO2,1\nTi2O3,2\n")
    caplog.clear()
    assert app.run(["generate", "--requests", "formulas.csv", "-n", "1", *common, *few, "--out", "list"]) == 0
    told_first = caplog.messages[0]
    assert "'few.csv' has no entry of the element Ti: 2 formulas have no energy above" in told_first
    assert app.run([*settled, "--out", "bare", *few]) == 0
    rows = parquet.read_table(tmp_path / "bare/results.parquet").to_pylist()
    assert [row["energy"] is not None for row in rows] == [True] * len(rows)
    assert {row["e_above_hull"] for row in rows} == {None}
    assert app.run(["generate", "TiO2", "--formation-energy"]) == 2
    assert "formation_energy without energy: name a model" in capsys.readouterr().err
