"""Crystals go out in every format and come back the same."""

from __future__ import annotations

import csv
import importlib.util
import json
import re

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.structure_matcher import StructureMatcher

from crystallm import language
from crystallm.cli import app
from crystallm.crystals import crystal
from crystallm.crystals import table as crystals_table
from crystallm.errors import InputError
from crystallm.export import collection as export_collection
from crystallm.export import writers
from crystallm.sources import collection, parsing
from crystallm.storage import files as storage_files
from crystallm.storage import tables
from crystallm.visualization import notebook_view
from real_crystals import published

with_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


@pytest.fixture
def fifty(tmp_path):
    """A folder of 50 real crystals as CIFs, by their numbers."""
    (tmp_path / "cifs").mkdir()
    for number, row in enumerate(published()[:50]):
        (tmp_path / "cifs" / f"c{number:02d}.cif").write_text(row["cif"])
    return tmp_path / "cifs"


@pytest.mark.parametrize(
    "to",
    ["cif", "poscar", "csv", "pymatgen", "optimade", "genbench"]
    + [pytest.param(to, marks=with_ase) for to in ("extxyz", "ase")],
)
def test_fifty_crystals_come_back_the_same(fifty, tmp_path, to):
    found = export_collection.export(fifty, to, tmp_path / "out")
    assert found.path == tmp_path / f"out{writers.FORMATS[to][0]}"
    assert (found.n, found.skipped) == (50, ())
    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.01, primitive_cell=False, scale=False)
    entries = {entry.id: entry for entry in collection.read(found.path)}
    assert sorted(entries) == [f"c{number:02d}" for number in range(50)]
    for number, row in enumerate(published()[:50]):
        before = parsing.structure(row["cif"])
        entry = entries[f"c{number:02d}"]
        after = parsing.structure(entry.text, entry.format)
        assert after.composition == before.composition
        assert np.allclose(after.lattice.parameters, before.lattice.parameters, atol=1e-4)
        assert matcher.fit(after, before)


def run_folder(place, textbook_structures):
    """A run of two crystals with an energy, one that is no crystal, and one without a CIF of its own."""
    orbits = language.get_language("orbits")
    rows = []
    for sample, structure in enumerate(textbook_structures.values()):
        one = crystal.Crystal(
            orbits,
            orbits.encode(structure),
            log_likelihood=-10.5 - sample,
            source=crystal.Source(
                "default", 7, 2**63 + 5, "a book", conditions="formation_energy_per_atom=-1.2"
            ),
        )
        energies = {"energy": -3.25, "formation_energy": -1.25, "e_above_hull": 0.05}
        rows.append(one.row() | {"request": 0, "sample": sample} | energies)
        if sample == 1:
            rows[-1] |= {"valid": False, "plausible": False, "reasons": "bonds"}
    broken = crystal.Crystal(orbits, [0, 1]).row() | {"request": 0, "sample": 9}
    from crystallm.storage import files, tables

    rows = [dict.fromkeys(crystals_table.COLUMNS) | row for row in [*rows, broken]]
    files.write_atomically(place / "run" / "results.parquet", tables.as_parquet(rows, crystals_table.COLUMNS))
    files.write_json(place / "run" / "run.json", {})
    return place / "run"


@with_ase
def test_what_is_known_of_a_crystal_goes_with_it(tmp_path, textbook_structures):
    from ase.db import connect
    from ase.io import read

    run = run_folder(tmp_path, textbook_structures)
    out = {
        to: export_collection.export(run, to, tmp_path / f"x{to}").path
        for to in ("csv", "extxyz", "ase", "optimade")
    }
    with out["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"0-{i}" for i in range(5)]
    assert rows[0]["log_likelihood"] == "-10.5"
    assert rows[0]["seed"] == "7"
    assert rows[0]["formula"] == "Na4Cl4"
    frames = read(out["extxyz"], index=":", format="extxyz")
    assert frames[0].get_potential_energy() == pytest.approx(-3.25 * 8)
    assert frames[0].info["energy_per_atom"] == pytest.approx(-3.25)
    assert frames[1].info["reasons"] == "bonds"
    assert frames[0].info["conditions"] == "formation_energy_per_atom=-1.2"
    assert frames[0].info["formation_energy"] == pytest.approx(-1.25)
    database = connect(out["ase"], type="db")
    (row,) = database.select(material_id="0-1")
    assert row.energy == pytest.approx(-3.25 * 6)
    assert (row.conditions, row.e_above_hull) == ("formation_energy_per_atom=-1.2", 0.05)
    assert (row.log_likelihood, row.crystal_sample_index, row.valid) == (-11.5, f"#{2**63 + 5}", 0)
    line = json.loads(out["optimade"].read_text().splitlines()[2])
    assert line["attributes"]["_crystallm_log_likelihood"] == -10.5
    assert line["attributes"]["chemical_formula_anonymous"] == "AB"


def test_what_a_run_has_thrown_out_goes_only_with_all(tmp_path, textbook_structures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = textbook_structures["rocksalt"].to(fmt="cif")
    rows = [{"request": 0, "sample": i, "cif": text, "kept": kept} for i, kept in enumerate((True, False))]
    storage_files.write_atomically(
        tmp_path / "run" / "results.parquet", tables.as_parquet(rows, crystals_table.COLUMNS)
    )
    assert app.run(["export", "run", "--to", "cif", "--out", "answers", "--quiet"]) == 0
    assert app.run(["export", "run", "--to", "cif", "--out", "all", "--all", "--quiet"]) == 0
    assert [len(list((tmp_path / name).iterdir())) for name in ("answers", "all")] == [1, 2]


def test_what_cannot_go_is_named_and_the_rest_is_written(tmp_path, textbook_structures):
    run = run_folder(tmp_path, textbook_structures)
    found = export_collection.export(run, "poscar", tmp_path / "all")
    assert found.n == 5
    assert [name for name, _ in found.skipped] == ["0-9"]
    found = export_collection.export(run, "poscar", tmp_path / "valid", only_valid=True)
    assert ("0-1", "not plausible: bonds") in found.skipped
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5] * 3])
    (tmp_path / "mixed").mkdir()
    shared.to(filename=str(tmp_path / "mixed" / "mix.cif"))
    textbook_structures["rocksalt"].to(filename=str(tmp_path / "mixed" / "salt.cif"))
    for to in ("poscar", "extxyz", "optimade", "genbench"):
        found = export_collection.export(tmp_path / "mixed", to, tmp_path / f"m{to}")
        assert found.n == 1
        assert found.skipped[0][0] == "mix"
        assert "shared" in found.skipped[0][1]
    assert (tmp_path / "mgenbench" / "structures.txt").read_text() == "salt.cif\n"
    assert export_collection.export(tmp_path / "mixed", "cif", tmp_path / "mcif").n == 2


@with_ase
def test_a_csv_tells_what_a_run_tells(tmp_path, textbook_structures):
    from ase.io import read

    run = run_folder(tmp_path, textbook_structures)
    table = export_collection.export(run, "csv", tmp_path / "x.csv").path
    for to in ("extxyz", "pymatgen"):
        export_collection.export(run, to, tmp_path / f"a{writers.FORMATS[to][0]}", only_valid=True)
        found = export_collection.export(table, to, tmp_path / f"b{writers.FORMATS[to][0]}", only_valid=True)
        assert ("0-1", "not plausible: bonds") in found.skipped
    frames = read(tmp_path / "b.extxyz", index=":")
    assert [frame.get_potential_energy() for frame in frames] == pytest.approx(
        [-3.25 * len(frame) for frame in frames]
    )
    ours, theirs = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    for one, other in zip(ours, theirs, strict=True):
        del one["structure"], other["structure"]
        assert one == other
        assert (other["sample_index"], other["log_likelihood"]) == (2**63 + 5, one["log_likelihood"])


@pytest.mark.parametrize(
    ("source", "to", "said"),
    [
        ("cifs", "xtal", "to = 'xtal': give one of cif"),
        ("nothing", "cif", "no file or folder"),
        ("cifs", "csv", "is there already"),
    ],
)
def test_what_is_asked_wrongly_writes_nothing(fifty, tmp_path, monkeypatch, source, to, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifs.csv").write_text("mine")
    with pytest.raises(InputError, match=said):
        export_collection.export(tmp_path / source, to)
    assert (tmp_path / "cifs.csv").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_a_collection_without_a_crystal_leaves_no_file(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.cif").write_text("data_\n_cell_length_a 3\n")
    with pytest.raises(InputError, match="no crystal that can be written"):
        export_collection.export(tmp_path / "c", "csv", tmp_path / "c.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_crystal_draws_itself(textbook_structures):
    orbits = language.get_language("orbits")
    one = crystal.Crystal(orbits, orbits.encode(textbook_structures["perovskite"]))
    html = one._repr_html_()
    assert "P" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    # Eight corners of Ti, twelve edges of O, one Sr in the middle; the picture stands without the script.
    drawn = html.split("<script>")[0]
    shown = re.findall(r"<title>(\w+)</title>", drawn)
    assert sorted({symbol: shown.count(symbol) for symbol in shown}.items()) in (
        [("O", 12), ("Sr", 1), ("Ti", 8)],
        [("O", 6), ("Sr", 8), ("Ti", 1)],
    )
    assert drawn.count("<line") == 12
    inside = [float(x) for x in re.findall(r'c[xy]="([-\d.]+)"', drawn)]
    assert all(0 <= x <= notebook_view.SIZE for x in inside)
    broken = crystal.Crystal(orbits, [0, 1])._repr_html_()
    assert broken.startswith("<pre>&lt;Crystal, broken:")


@with_ase
def test_a_crystal_is_an_ase_atoms_object(textbook_structures):
    orbits = language.get_language("orbits")
    one = crystal.Crystal(orbits, orbits.encode(textbook_structures["rutile"]))
    assert one.atoms.get_chemical_formula() == "O4Ti2"
    assert np.allclose(one.atoms.cell.lengths(), one.structure.lattice.abc)


def test_the_command_tells_what_it_wrote(fifty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (fifty / "torn.cif").write_text("data_\n_cell_length_a 3\n")
    assert app.run(["export", "cifs", "--to", "csv"]) == 0
    out = capsys.readouterr().out
    assert "50 crystals; cifs.csv" in out
    assert "torn left out: " in out
    assert app.run(["export", "cifs", "--to", "cif", "--out", "again", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["crystals"], told["skipped"][0]["id"]) == ("again", 50, "torn")
    for arguments in (["export"], ["export", "cifs"], ["export", "cifs", "--to", "odd"]):
        assert app.run(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
