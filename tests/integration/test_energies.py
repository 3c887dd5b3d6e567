"""Energies of crystals as they are generated: in rows, in the table, in the ranking."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest
from pyarrow import parquet
from pymatgen.core import Structure

import crystallm
from crystallm import energy
from crystallm.cli import app
from crystallm.crystals import annotation
from crystallm.crystals.ranking import rank_samples
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import CrystallmError, InputError

pytestmark = pytest.mark.usefixtures("kept")
needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


def test_the_lowest_energy_ranks_first_and_those_without_one_last():
    clusters, likelihood = [0, 1, 2, 0, None], [-1.0, -2.0, -3.0, -9.0, -0.5]
    heights = [-4.0, None, -5.0, -6.0, None]

    def ranks(valid):
        return rank_samples(clusters, likelihood, valid, "energy", heights, volumes=[None] * 5)

    assert ranks([True] * 4 + [False]) == [4, 3, 2, 1, None]
    # What is not valid stands behind, however low.
    assert ranks([True, True, False, False, False]) == [1, 2, 3, 4, None]
    equal = rank_samples([0, 1], [-2.0, -1.0], [True] * 2, "energy", [-3.0, -3.0], volumes=[None] * 2)
    assert equal == [2, 1]


def test_a_selection_with_energies_ranks_by_them_unless_told_otherwise():
    assert SelectionOptions(energy="chgnet").ranking == "energy"
    assert SelectionOptions(energy="chgnet", best=2).ranking == "energy"
    assert SelectionOptions(energy="chgnet", rank="agreement").ranking == "agreement"
    for asked, said in (
        ({"relax": True}, "relax without energy"),
        ({"rank": "energy"}, "rank = 'energy' without"),
    ):
        with pytest.raises(ValueError, match=said):
            SelectionOptions(**asked)


def test_crystals_get_energies_and_what_is_no_crystal_a_reason(parrot, babbler):
    (rutile,) = crystallm.generate("TiO2", z=2, space_group=136, n=1, model=parrot, temperature=0, seed=1)
    (broken,) = crystallm.generate("TiO2", n=1, model=babbler, constraints="none", seed=1)
    annotation.compute_energies([rutile, broken], "energies:morse", device="cpu")
    (expected,) = energy.load("energies:morse").predict([rutile.structure])
    assert (rutile.energy, rutile.energy_reason) == (pytest.approx(expected.energy), None)
    assert (broken.energy, broken.energy_reason) == (None, "no crystal")
    assert rutile.row()["energy"] == rutile.energy
    assert broken.row()["energy_reason"] == "no crystal"


def test_a_model_that_is_not_there_is_refused_before_anything_is_loaded():
    with pytest.raises(InputError, match="no energy model 'dft'"):
        crystallm.generate("TiO2", selection=SelectionOptions(energy="dft"), model="nowhere")


@needs_ase
def test_generated_crystals_are_relaxed_and_ranked_by_energy(parrot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = [
        "generate", "TiO2", "--z", "2", "-n", "4", "--model", str(parrot), "--seed", "1",
        "--energy", "energies:morse", "--device", "cpu", "--out",
    ]  # fmt: skip
    assert app.run([*asked, "plain"]) == 0
    assert "eV/atom" in capsys.readouterr().out
    assert app.run([*asked, "relaxed", "--relax"]) == 0
    plain, relaxed = (
        parquet.read_table(f"{name}/results.parquet").to_pylist() for name in ("plain", "relaxed")
    )
    for before, after in zip(plain, relaxed, strict=True):
        assert before["text"] == after["text"]
        if before["energy"] is None:
            assert before["energy_reason"]
            continue
        assert after["energy"] < before["energy"]
        cell = Structure.from_str(after["cif"], fmt="cif")
        assert cell.volume / len(cell) == pytest.approx(after["volume_per_atom"], rel=1e-3)
        (again,) = energy.load("energies:morse").predict([cell])
        assert again.energy == pytest.approx(after["energy"], abs=1e-3)
        assert (tmp_path / "relaxed" / "cifs" / after["file"]).read_text() == after["cif"]
    ranked = sorted((row for row in relaxed if row["rank"]), key=lambda row: row["rank"])
    leaders = {row["cluster"]: row for row in reversed(ranked) if row["plausible"]}
    heights = [math.inf if row["energy"] is None else row["energy"] for row in reversed(leaders.values())]
    assert heights
    assert heights == sorted(heights)
    capsys.readouterr()
    assert app.run([*asked, "plain", "--json"]) == 0  # it is finished: nothing is asked again
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in rows] == sorted(row["rank"] for row in plain)
    assert app.run([*asked, "plain", "--rank", "agreement"]) == 2
    assert "another run" in capsys.readouterr().err


def test_what_cannot_be_asked_together_is_refused(capsys, monkeypatch):
    assert app.run(["generate", "TiO2", "--relax"]) == 2
    assert "relax without energy: name a model" in capsys.readouterr().err
    from crystallm.energy import registry

    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    assert app.run(["generate", "TiO2", "--energy", "chgnet"]) == CrystallmError.exit_code
    assert "pip install 'crystallm[energy]'" in capsys.readouterr().err
