"""A whole collection is judged: nothing stops it or is lost, and a killed run ends with the same rows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from pymatgen.core import Structure

from conftest import textbook
from crystallm.benchmarks import sun
from crystallm.cif import writer
from crystallm.cli.app import run
from crystallm.thermodynamics import collection_energies
from crystallm.thermodynamics.hull import Hull
from crystallm.validity import checks, collection
from energies import Morse
from evaluated import ASE_ROCKSALT, judged
from killed import kill_after
from real_crystals import published, told_otherwise

pytestmark = pytest.mark.usefixtures("kept")


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


# -- energies and novelty ------------------------------------------------------------------------------------

needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")
MORSE = ("--energy", "energies:morse", "--workers", "1", "--device", "cpu")
ODD = ("--energy", "energies:odd", "--workers", "1", "--device", "cpu")
ASKED = ("evaluate", "made", *ODD, "--hull", "entries.csv", "--out", "out", "--known", "known")


@needs_ase
def test_sun_of_a_folder_is_what_one_counts_and_a_killed_run_goes_on(crystallm, monkeypatch, caplog):
    with monkeypatch.context() as patch:

        def killed(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(sun, "compare", killed)
        assert crystallm(*ASKED)[0] == 130
    # All energies are there: none is asked for again.
    monkeypatch.setattr(collection_energies, "collection_energies", None)
    caplog.clear()
    code, out, _ = crystallm(*ASKED, "--json")
    assert code == 0
    lacking = "'entries.csv' has no entry of the element He, Sr: 2 crystals have no energy"
    assert caplog.messages[0].startswith(lacking)
    told = json.loads(out)
    counts = {name: one["count"] for name, one in told["sun"]["shares"].items()}
    assert counts == {
        "with_energy": 6, "placed": 5, "stable": 3, "metastable": 4,
        "unique": 6, "novel": 6, "sun": 1, "msun": 2,
    }  # fmt: skip
    assert (told["n"], told["sun"]["n_known"], told["sun"]["n_compared"]) == (8, 1, 1)
    rows = {row["id"]: row for row in parquet.read_table("out/results.parquet").to_pylist()}
    assert len(rows) == 8
    above = {name: row["e_above_hull"] for name, row in rows.items() if row["e_above_hull"] is not None}
    far = {"rutile": -0.01, "rutile-again": -0.01, "rocksalt": 0.05, "wurtzite": 0.2, "diamond": -0.01}
    assert above == pytest.approx(far, abs=1e-6)
    assert rows["rutile-again"]["repeats"] == "rutile" or rows["rutile"]["repeats"] == "rutile-again"
    assert (rows["diamond"]["novel"], rows["diamond"]["known"]) == (False, "d")
    assert rows["helium"]["energy_reason"] == "ValueError: no helium here"
    assert rows["perovskite"]["energy_reason"].startswith("'entries.csv' has no entry of the element Sr")
    assert rows["torn"]["energy_reason"] == "no crystal"
    assert not rows["torn"]["unique"] and not rows["torn"]["novel"]  # noqa: PT018 - one claim on both
    # Figures of a finished run need no work; what its rows rest on cannot change.
    monkeypatch.setattr(sun, "compare", None)
    code, out, _ = crystallm(*ASKED, "--metastable-threshold", "0.02")
    assert code == 0
    assert "metastable: ≤ 0.02 eV/atom" in out
    assert "novel: against 1 known crystals" in out
    assert "does not say whether its energies are of energies:odd" in out
    assert "S.U.N.: stable, unique, novel" in Path("out/report.html").read_text(encoding="utf-8")
    code, _, err = crystallm(*ASKED, "made")
    assert code == 2
    assert "out holds another run (known was" in err
    with Path("entries.csv").open("a", encoding="utf-8") as file:
        file.write("Sr,5\n")
    code, _, err = crystallm(*ASKED)
    assert code == 2
    assert "out holds another run (hull_digest was" in err


@needs_ase
def test_relaxed_crystals_are_compared_and_counted_as_they_have_become(crystallm, inline, caplog):
    code, out, err = crystallm("hull", "made", *MORSE, "--out", "hull.jsonl")
    assert (code, err) == (0, "")
    assert "1  no crystal: it has a cell and no atoms" in out
    asked = ("evaluate", "made/rutile.cif", *MORSE, "--hull", "hull.jsonl", "--relax", "--out", "out")
    caplog.clear()
    code, out, _ = crystallm(*asked, "--known", "known", "made")
    assert code == 0
    said = "the entries of 'hull.jsonl' were not relaxed, these crystals are"
    unreadable = (
        "1 known crystals cannot be read: torn (it has a cell and no atoms with fractional coordinates)"
    )
    assert caplog.messages == [f"{said}: energies above the hull come out too low", unreadable]
    assert "by the same method" not in out  # of these entries it is known
    (row,) = parquet.read_table("out/results.parquet").to_pylist()
    assert row["converged"]
    assert row["energy"] < row["energy_before"]
    composition = Structure.from_file("made/rutile.cif").composition
    assert row["e_above_hull"] == pytest.approx(Hull(Path("hull.jsonl")).above(composition, row["energy"]))
    relaxed = Structure.from_str(row["relaxed_cif"], fmt="cif")
    assert Morse().one(relaxed, forces=False).energy == pytest.approx(row["energy"], abs=1e-4)
    assert row["rmsd"] == pytest.approx(
        collection_energies.rmsd(Structure.from_file("made/rutile.cif"), relaxed), abs=1e-3
    )
    assert 0.1 < row["rmsd"] < 0.5
    # As it was written it is a known crystal; it has become another one.
    assert (row["unique"], row["novel"]) == (True, True)


@needs_ase
def test_what_is_new_is_told_without_energies(crystallm, inline):
    code, out, err = crystallm("evaluate", "made", "--known", "known", "--workers", "1", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)["sun"]
    assert {name: one["count"] for name, one in found["shares"].items()} == {"unique": 6, "novel": 6}
    assert found["e_above_hull"] is None
