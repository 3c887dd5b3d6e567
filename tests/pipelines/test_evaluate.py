"""A whole collection is judged: nothing stops it or is lost, and a killed run ends with the same rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pyarrow import parquet

from conftest import textbook
from crystallm.cif import writer
from crystallm.cli.app import run
from crystallm.validity import checks, collection
from killed import kill_after
from real_crystals import published, told_otherwise

pytestmark = pytest.mark.usefixtures("kept")


ASE_ROCKSALT = """data_image0
_chemical_formula_structural       NaCl
_chemical_formula_sum              "Na1 Cl1"
_cell_length_a       3.988
_cell_length_b       3.988
_cell_length_c       3.988
_cell_angle_alpha    60.0
_cell_angle_beta     60.0
_cell_angle_gamma    60.0
_space_group_name_H-M_alt    "P 1"
_space_group_IT_number       1
loop_
  _space_group_symop_operation_xyz
  'x, y, z'
loop_
  _atom_site_type_symbol
  _atom_site_label
  _atom_site_symmetry_multiplicity
  _atom_site_fract_x
  _atom_site_fract_y
  _atom_site_fract_z
  _atom_site_occupancy
  Na  Na1       1.0  0.00000  0.00000  0.00000  1.0000
  Cl  Cl1       1.0  0.50000  0.50000  0.50000  1.0000
"""


@pytest.fixture
def folder(tmp_path):
    """CIFs of several programs, and files that are none."""
    place = tmp_path / "crystals"
    place.mkdir()
    for name, structure in textbook().items():
        (place / f"text-{name}.cif").write_text(writer.to_text(structure))
        (place / f"ours-{name}.cif").write_text(writer.to_cif(writer.to_text(structure)))
        structure.to(filename=str(place / f"pymatgen-{name}.cif"))
    (place / "ase.cif").write_text(ASE_ROCKSALT)
    whole = (place / "pymatgen-rutile.cif").read_text()
    (place / "torn.cif").write_text(whole[: len(whole) * 3 // 4])
    (place / "torn-text.cif").write_text(writer.to_text(textbook()["rutile"])[:-60])
    (place / "empty.cif").write_text("")
    (place / "binary.cif").write_bytes(bytes(range(256)))
    with (place / "huge.cif").open("wb") as file:
        file.truncate(50_000_000)
    return place


BROKEN = {"torn", "torn-text", "empty", "binary", "huge"}


def judged(capsys, *arguments) -> dict[str, object]:
    assert run(["evaluate", *map(str, arguments), "--json", "--workers", "1"]) == 0
    return json.loads(capsys.readouterr().out)


def test_crystals_of_all_programs_are_judged_and_nothing_stops_it(folder, tmp_path, capsys):
    summary = judged(capsys, folder, "--out", tmp_path / "out")
    rows = {row["id"]: row for row in parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()}
    assert len(rows) == summary["n"] == 21
    assert {name for name, row in rows.items() if not row["valid"]} == BROKEN
    assert all(rows[name]["reasons"] for name in BROKEN)
    assert {name for name, row in rows.items() if not row["readable"]} == BROKEN
    assert summary["counts"]["readable"] == 21 - len(BROKEN)
    assert rows["ase"]["found_group"] == rows["text-rocksalt"]["found_group"] == "Fm-3m"
    assert rows["ase"]["cell_formula"] == "Na4Cl4"
    assert rows["text-rutile"]["as_printed"]
    assert rows["ours-rutile"]["as_printed"]
    assert not rows["pymatgen-rutile"]["as_printed"]
    assert rows["ase"]["volume_per_atom"] == pytest.approx(3.988**3 / np.sqrt(2) / 2, rel=1e-3)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "21 crystals evaluated" in html
    assert html.count("data:image/png;base64,") == 4
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary


def test_what_is_printed_and_the_crystal_itself_are_two_questions(tmp_path, capsys):
    textbook()["rocksalt"].to(filename=str(tmp_path / "p1.cif"))  # eight atoms in P1
    assert judged(capsys, tmp_path, "--read-as", "text")["counts"]["space_group"] == 0
    assert judged(capsys, tmp_path, "--read-as", "auto")["counts"]["space_group"] == 1


def test_the_verdict_does_not_depend_on_setting_and_origin():
    rng = np.random.default_rng(5)
    cells = (
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [[-1, 0, 0], [0, 1, 0], [0, 1, 1]],
    )
    from pymatgen.core import Structure

    known = [Structure.from_str(row["cif"], fmt="cif") for row in published()[7::100]]
    for structure in [*textbook().values(), *known]:
        told = [structure, *(told_otherwise(structure, rng, cell) for cell in cells)]
        verdicts = [checks.inspect(s.to(fmt="cif"), "crystal") for s in told]
        assert len({(v.valid, v.space_group, v.multiplicity, f.found_group) for v, f in verdicts}) == 1
        scores = [v.bond_score for v, _ in verdicts]
        assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-9)


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(tmp_path, monkeypatch):
    from pyarrow import Table

    rows = [{"id": row["id"], "cif": row["text"]} for row in published()[:90]]
    parquet.write_table(Table.from_pylist(rows), tmp_path / "all.parquet")
    asked = ["evaluate", "all.parquet", "--workers", "1", "--quiet", "--out"]
    patches = "from crystallm.validity import collection; collection.BLOCK = 15"
    parts = tmp_path / "killed" / "parts"
    done = kill_after(2, [*asked, "killed"], parts, at_most=4, patches=patches, cwd=tmp_path)
    assert 2 <= len(done) <= 4
    assert not (tmp_path / "killed" / "results.parquet").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collection, "BLOCK", 15)
    for name in ("killed", "whole"):
        assert run([*asked, name]) == 0
    for name in ("results.parquet", "summary.json", "report.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no crystals"),
        (["nowhere"], "no file or folder 'nowhere'"),
        (["x.cif", "--read-as", "all"], "read_as"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(capsys, arguments, message):
    assert run(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error.lower()
    assert error.count("\n") == 1
