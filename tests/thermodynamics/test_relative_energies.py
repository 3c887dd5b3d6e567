"""Energies counted from the elements, and from the hull of known entries."""

from __future__ import annotations

import importlib.util
import json

import pytest
from pyarrow import parquet
from pymatgen.core import Composition

from crystallm.cli import app
from crystallm.crystallography import elements
from crystallm.energy import calculations
from crystallm.errors import CrystallmError, InputError
from crystallm.thermodynamics import formation
from crystallm.thermodynamics.hull import Hull
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


def test_a_formation_energy_is_counted_from_the_shares_of_the_elements():
    energies = {"Ti": -7.0, "O": -5.0}
    # (-7 + 2 * -5) / 3 = -5.667
    assert formation.formation_energy(Composition("Ti2O4"), -9.0, energies) == pytest.approx(-10 / 3)
    assert formation.formation_energy(Composition("Ti"), -7.0, energies) == pytest.approx(0.0)
    assert formation.formation_energy(Composition("ZrO2"), -9.0, energies) is None


@needs_ase
def test_every_element_of_the_language_has_a_reference_crystal():
    from crystallm.thermodynamics import reference_crystals

    for symbol in elements.symbols():
        structure = reference_crystals.element(symbol)
        assert {site.specie.symbol for site in structure} == {symbol}
        assert 5 < structure.volume / len(structure) < 125, symbol  # of diamond, and of caesium
        lengths = structure.get_neighbor_list(5.5)[3]
        assert 0.7 < lengths.min() < 5.4, symbol
    with pytest.raises(InputError, match="no reference crystal of 'Xx'"):
        reference_crystals.element("Xx")


@needs_ase
def test_energies_of_elements_are_kept_in_a_file(tmp_path, monkeypatch):
    file = tmp_path / "deep" / "morse.json"
    found = formation.element_energies(["Cu", "Al"], "energies:morse", file=file)
    assert set(found) == {"Cu", "Al"}
    assert json.loads(file.read_text()) == found

    def not_again(*_, **__):
        raise AssertionError("they are known")

    monkeypatch.setattr(calculations, "relax_all", not_again)
    assert formation.element_energies(["Al"], "energies:morse", file=file) == {"Al": found["Al"]}
    file.write_text("[1, 2]")
    with pytest.raises(CrystallmError, match="holds no energies of elements: delete it"):
        formation.element_energies(["Al"], "energies:morse", file=file)


@needs_ase
def test_energies_of_elements_that_are_not_relaxed_are_not_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(formation, "STEPS", 0)
    file = tmp_path / "morse.json"
    assert formation.element_energies(["Cu"], "energies:morse", file=file) == {}
    assert "the reference crystal of Cu is not relaxed after 0 steps" in caplog.text
    monkeypatch.undo()
    assert set(formation.element_energies(["Cu"], "energies:morse", file=file)) == {"Cu"}


def test_energies_above_the_hull_are_those_of_the_tie_lines(hull_file):
    hull = Hull(hull_file)
    assert hull.above(Composition("TiO2"), -8.9) == pytest.approx(0.1)
    assert hull.above(Composition("TiO2"), -9.1) == pytest.approx(-0.1)
    # Of the atoms of TiO, 1/6 are those of Ti and 5/6 those of Ti2O3.
    on_line = -7.0 / 6 - 9.1 * 5 / 6
    assert hull.above(Composition("TiO"), on_line) == pytest.approx(0.0)
    with pytest.raises(InputError, match="no entry of the element Zr"):
        hull.above(Composition("ZrO2"), -9.0)


def test_a_hull_without_an_element_tells_nothing_and_says_so_once(hull_file, caplog):
    relation = RelativeEnergies("energies:morse", formation=False, hull=str(hull_file))
    for _ in range(2):
        assert relation.told(Composition("ZrO2"), -9.0) == {"formation_energy": None, "e_above_hull": None}
    assert relation.told(Composition("TiO2"), -8.9)["e_above_hull"] == pytest.approx(0.1)
    assert [record.getMessage().count("no entry of the element Zr") for record in caplog.records] == [1]


def test_entries_come_in_several_forms(hull_file, tmp_path):
    rows = [{"formula": formula, "energy_per_atom": energy} for formula, energy in ENTRIES]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    computed = [
        {"composition": dict(Composition(f).get_el_amt_dict()), "energy": e * Composition(f).num_atoms,
         "correction": 0.0}
        for f, e in ENTRIES
    ]  # fmt: skip
    (tmp_path / "computed.json").write_text(json.dumps(computed))
    for name in ("rows.jsonl", "computed.json"):
        assert Hull(tmp_path / name).above(Composition("TiO2"), -8.9) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "Ti -7", "give a .csv, .jsonl or .json file"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "{}", "no list of entries"),
        ("a.json", "[]", "has no entry"),
        ("a.json", "[3]", "entry 1 is no row"),
        ("a.csv", "composition,energy_per_atom\nTi,low\n", "entry 1: needs a composition"),
        ("a.csv", "composition,energy_per_atom\nQq,-1\n", "is no entry"),
        ("a.csv", "composition,energy_per_atom\nTi,nan\n", "is no entry"),
        ("a.csv", None, "cannot be read"),
    ],
)
def test_what_is_no_file_of_entries_is_refused(tmp_path, capsys, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(CrystallmError, match=said):
        Hull(path)
    assert app.run(["search", "TiO2", "--energy", "energies:morse", "--hull", str(path)]) != 0
    assert said in capsys.readouterr().err


@needs_ase
def test_commands_tell_both(parrot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # O2 of Morse pairs: known here, so that only titanium is relaxed.
    kept = tmp_path / "cache/crystallm/references/energies_morse.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"O": -1.0, "Ti": -2.0}))
    (tmp_path / "e.csv").write_text("composition,energy_per_atom\nTi,-1\nO2,-1\nTiO2,-2\n")
    common = ["--energy", "energies:morse", "--model", str(parrot), "--seed", "1", "--device", "cpu"]
    told = ["--formation", "--hull", "e.csv"]
    asked = ["TiO2", "--z", "2", *common, *told]
    assert app.run(["generate", *asked, "-n", "2", "--out", "generated"]) == 0
    shown = capsys.readouterr().out
    assert "formation" in shown
    assert "above hull" in shown
    assert app.run(["search", *asked, "--simulations", "4", "--out", "searched"]) == 0
    assert "above hull" in capsys.readouterr().out
    settled = ["relax", "generated/cifs", "--model", "energies:morse", "--steps", "10", "--workers", "1"]
    assert app.run([*settled, "--out", "relaxed", *told]) == 0
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
    assert app.run(["generate", "--requests", "formulas.csv", "-n", "1", *common, *few, "--out", "list"]) == 0
    told_first = capsys.readouterr().err.splitlines()[0]
    assert "'few.csv' has no entry of the element Ti: 2 formulas have no energy above" in told_first
    assert app.run([*settled, "--out", "bare", *few]) == 0
    rows = parquet.read_table(tmp_path / "bare/results.parquet").to_pylist()
    assert [row["energy"] is not None for row in rows] == [True] * len(rows)
    assert {row["e_above_hull"] for row in rows} == {None}
    assert app.run(["generate", "TiO2", "--formation-energy"]) == 2
    assert "formation without energy: name a model" in capsys.readouterr().err
