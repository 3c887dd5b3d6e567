"""Energies above the convex hull."""

from __future__ import annotations

import json

import pytest
from pymatgen.core import Composition

from crystallm.cli import app
from crystallm.errors import CrystallmError, InputError
from crystallm.thermodynamics.hull import Hull

pytestmark = pytest.mark.usefixtures("kept")


ENTRIES = [("Ti", -7.0), ("O2", -5.0), ("TiO2", -9.0), ("Ti2O3", -9.1)]


@pytest.fixture
def hull_file(tmp_path):
    path = tmp_path / "entries.csv"
    lines = [f"{formula},{energy}" for formula, energy in ENTRIES]
    path.write_text("\n".join(["composition,energy_per_atom", *lines]) + "\n")
    return path


def test_energies_above_the_hull_are_those_of_the_tie_lines(hull_file):
    hull = Hull(hull_file)
    assert hull.above(Composition("TiO2"), -8.9) == pytest.approx(0.1)
    assert hull.above(Composition("TiO2"), -9.1) == pytest.approx(-0.1)
    # Of the atoms of TiO, 1/6 are those of Ti and 5/6 those of Ti2O3.
    on_line = -7.0 / 6 - 9.1 * 5 / 6
    assert hull.above(Composition("TiO"), on_line) == pytest.approx(0.0)
    with pytest.raises(InputError, match="no entry of the element Zr"):
        hull.above(Composition("ZrO2"), -9.0)


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


def test_a_correction_belongs_to_the_energy(tmp_path):
    rows = [{"composition": f, "energy": e * Composition(f).num_atoms} for f, e in ENTRIES]
    rows[2] |= {"energy": -26.4, "correction": -0.6}  # -27 eV of TiO2
    (tmp_path / "corrected.json").write_text(json.dumps(rows))
    assert Hull(tmp_path / "corrected.json").above(Composition("TiO2"), -8.9) == pytest.approx(0.1)


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


def test_a_hull_of_noble_gases_is_quiet(tmp_path):
    (tmp_path / "gas.csv").write_text("composition,energy_per_atom\nHe,0\nLi,-1\nLi3He,-1\n")
    # Warnings are errors here. LiHe2 is 4/9 Li3He and 5/9 He.
    assert Hull(tmp_path / "gas.csv").above(Composition("LiHe2"), -0.3) == pytest.approx(4 / 9 - 0.3)


def test_a_hull_says_whose_energies_it_has_where_it_knows(tmp_path):
    lines = [{"composition": "Ti", "energy_per_atom": -1.0, "model": "chgnet", "relaxed": True}]
    (tmp_path / "own.jsonl").write_text(json.dumps(lines[0]))
    (tmp_path / "any.csv").write_text("composition,energy_per_atom\nTi,-1\n")
    own, other = Hull(tmp_path / "own.jsonl"), Hull(tmp_path / "any.csv")
    assert (own.models, own.relaxed, other.models, other.relaxed) == ({"chgnet"}, {True}, set(), set())
    own.check_model("chgnet")
    other.check_model("chgnet")
    with pytest.raises(InputError, match="has energies of chgnet, not of sevennet"):
        own.check_model("sevennet")
