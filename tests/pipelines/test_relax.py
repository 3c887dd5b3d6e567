"""`crystallm relax` from end to end, with a model of which one knows everything."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
from pyarrow import parquet
from pymatgen.core import Lattice, Structure

from crystallm.cli import app
from crystallm.energy.calculations import relax_many
from crystallm.pipelines.relax import COLUMNS
from crystallm.sources import collection

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")
OPTIONS = ("--energy", "energies:odd", "--workers", "1", "--device", "cpu", "--timeout", "20")


@pytest.fixture
def crystallm(capsys, monkeypatch, tmp_path, textbook_structures):
    """Runs a command in a folder with two crystals, one that breaks the model, and one that is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifs").mkdir()
    for name in ("rocksalt", "rutile"):
        textbook_structures[name].to(filename=f"cifs/{name}.cif", fmt="cif")
    salt = (tmp_path / "cifs" / "rocksalt.cif").read_text()
    (tmp_path / "cifs" / "helium.cif").write_text(salt.replace("Cl", "He"))
    (tmp_path / "cifs" / "torn.cif").write_text("data_\n_cell_length_a 3\n")

    def run(*arguments):
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_collection_is_relaxed_and_a_killed_run_goes_on(crystallm, tmp_path, monkeypatch):
    asked = ("relax", "cifs", *OPTIONS, "--keep-symmetry", "--trajectory", "--out", "out")
    code, out, err = crystallm(*asked)
    assert (code, err) == (0, "")
    assert "4 crystals, 2 relaxed, 0 not to the end; out/results.parquet" in out
    table = parquet.read_table("out/results.parquet")
    assert table.column_names == list(COLUMNS)
    rows = {row["id"]: row for row in table.to_pylist()}
    assert list(rows) == ["helium", "rocksalt", "rutile", "torn"]
    assert rows["helium"]["reason"] == "ValueError: no helium here"
    assert rows["torn"]["reason"]
    for name, group in (("rocksalt", 225), ("rutile", 136)):
        row = rows[name]
        assert row["energy"] < row["energy_before"]
        assert row["space_group_number"] == group
        assert (tmp_path / "out" / "cifs" / row["file"]).read_text() == row["cif"]
    frames = list(collection.read("out/trajectories/rocksalt.extxyz"))
    assert len(frames) == rows["rocksalt"]["steps"] + 1
    # All other tools read the folder: what was not relaxed is an entry without a text.
    assert [entry.text is None for entry in collection.read("out")] == [True, False, False, True]

    # As if killed behind the second crystal: that one's row is read, not made again.
    shutil.rmtree("out/cifs")
    marked = [
        row | {"formula": "kept" if row["id"] == "rocksalt" else row["formula"]} for row in rows.values()
    ]
    from crystallm.storage import files as storage_files
    from crystallm.storage import tables

    for unit in (0, 1, 3):
        storage_files.write_atomically(
            tmp_path / "out" / "parts" / f"{unit:05d}.parquet", tables.as_parquet([marked[unit]], COLUMNS)
        )
    (tmp_path / "out" / "results.parquet").unlink()
    assert crystallm(*asked, "--quiet") == (0, "", "")
    again = parquet.read_table("out/results.parquet").to_pylist()
    assert again == marked
    assert [path.name for path in (tmp_path / "out" / "cifs").iterdir()] == ["rutile.cif"]
    code, _, err = crystallm(*asked, "--fmax", "0.5")
    assert code == 2
    assert "out holds another run (fmax was 0.05, now 0.5)" in err


def test_equal_texts_are_relaxed_once_for_all_their_crystals(crystallm, tmp_path, monkeypatch):
    relaxed: list[str] = []

    def count(texts, *args, **how):
        texts = list(texts)
        relaxed.extend(texts)
        return relax_many(texts, *args, **how)

    monkeypatch.setattr("crystallm.pipelines.relax.relax_many", count)
    shutil.copy("cifs/rocksalt.cif", "cifs/twin.cif")
    assert crystallm("relax", "cifs", *OPTIONS, "--keep-symmetry", "--quiet", "--out", "out")[0] == 0
    rows = {row["id"]: row for row in parquet.read_table("out/results.parquet").to_pylist()}
    assert len(relaxed) == len(set(relaxed)) == 4  # the two others are no crystals
    assert rows["twin"] == rows["rocksalt"] | {"id": "twin", "file": "twin.cif"}
    assert (tmp_path / "out" / "cifs" / "twin.cif").read_text() == rows["rocksalt"]["cif"]


def test_crystals_of_a_run_keep_the_names_of_their_files(crystallm, tmp_path):
    from crystallm.crystals import table as crystals_table
    from crystallm.storage import files as storage_files
    from crystallm.storage import tables

    salt = (tmp_path / "cifs" / "rocksalt.cif").read_text()
    files = ("Na4Cl4-sg225-0000.cif", "00001/Na4Cl4-sg225-0001.cif", None)
    rows = [
        dict.fromkeys(crystals_table.COLUMNS) | {"request": 0, "sample": i, "cif": salt, "file": file}
        for i, file in enumerate(files)
    ]
    storage_files.write_atomically(
        tmp_path / "run" / "results.parquet", tables.as_parquet(rows, crystals_table.COLUMNS)
    )
    assert crystallm("relax", "run", *OPTIONS, "--steps", 1, "--out", "out", "--quiet")[0] == 0
    names = ["Na4Cl4-sg225-0000", "Na4Cl4-sg225-0001", "0-2"]
    assert [row["id"] for row in parquet.read_table("out/results.parquet").to_pylist()] == names
    assert {path.stem for path in (tmp_path / "out" / "cifs").iterdir()} == set(names)
    assert crystallm("export", "run", "--to", "cif", "--out", "exported")[0] == 0
    assert {path.stem for path in (tmp_path / "exported").iterdir()} == set(names)


def test_names_that_a_disk_cannot_tell_apart_are_numbered(crystallm, tmp_path):
    (tmp_path / "cifs" / "more").mkdir()
    shutil.copy("cifs/rutile.cif", "cifs/more/salt a.cif")
    shutil.copy("cifs/rutile.cif", "cifs/more_Salt+a.cif")
    shutil.copy("cifs/rutile.cif", "cifs/more_salt-a.cif")
    asked = ("relax", "cifs", *OPTIONS, "--steps", 1, "--quiet", "--out")
    assert crystallm(*asked, "apart")[0] == 0
    assert {path.name for path in (tmp_path / "apart" / "cifs").iterdir()} == {
        *("rocksalt.cif", "rutile.cif", "more_salt_a.cif", "more_Salt+a.cif", "more_salt-a.cif")
    }
    shutil.copy("cifs/rutile.cif", "cifs/More_salt_a.cif")
    assert crystallm(*asked, "alike")[0] == 0
    found = sorted(path.name for path in (tmp_path / "alike" / "cifs").iterdir())
    assert found[:2] == ["00000-More_salt_a.cif", "00002-more_salt_a.cif"]


@pytest.fixture
def polymorphs(tmp_path, crystallm):
    """The two crystals, rock salt twice more, and its formula in the structure of caesium chloride."""
    wide = Structure.from_file("cifs/rocksalt.cif")
    shutil.copy("cifs/rocksalt.cif", "cifs/again.cif")
    wide.apply_strain(0.02)
    wide.to(filename="cifs/wide.cif", fmt="cif")
    other = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    other.to(filename="cifs/other.cif", fmt="cif")


def test_equal_crystals_are_folded_and_the_lowest_of_each_formula_kept(crystallm, polymorphs, tmp_path):
    asked = ("relax", "cifs", *OPTIONS, "--keep-symmetry")
    code, out, err = crystallm(*asked, "--best", 1, "--out", "out")
    assert (code, err) == (0, "")
    assert "7 crystals, 2 kept, of these 2 relaxed, 0 not to the end" in out
    rows = {row["id"]: row for row in parquet.read_table("out/results.parquet").to_pylist()}
    salts = [rows[name] for name in ("rocksalt", "again", "wide")]
    assert {row["cluster_size"] for row in salts} == {3}
    assert len({row["cluster"] for row in salts}) == 1
    assert rows["other"]["cluster_size"] == rows["rutile"]["cluster_size"] == rows["rutile"]["rank"] == 1
    by_rank = sorted([*salts, rows["other"]], key=lambda row: row["rank"])
    assert [row["rank"] for row in by_rank] == [1, 2, 3, 4]
    # The best of each kind come first, by energy; its equals behind all that is distinct.
    assert by_rank[0]["energy"] == min(row["energy"] for row in by_rank)
    assert {by_rank[0]["cluster"], by_rank[1]["cluster"]} == {rows["other"]["cluster"], salts[0]["cluster"]}
    assert (rows["helium"]["rank"], rows["torn"]["cluster"]) == (None, None)
    kept = {f"{by_rank[0]['id']}.cif", "rutile.cif"}
    assert {path.name for path in (tmp_path / "out" / "cifs").iterdir()} == kept
    assert {row["file"] for row in rows.values() if row["file"]} == kept
    # The same command says the same, and so does a run that writes nothing; two of each formula are more.
    assert crystallm(*asked, "--best", 1, "--out", "out")[1] == out
    code, out, _ = crystallm(*asked, "--best", 2)
    assert code == 0
    places = [out.index(f" {name}") for name in (by_rank[0]["id"], by_rank[1]["id"], "rutile")]
    assert places == sorted(places)
    assert out.count("×3") == 1
    assert crystallm(*asked, "--out", "out")[0] == 2


def test_a_run_killed_before_its_crystals_are_ranked_goes_on(crystallm, polymorphs, tmp_path, monkeypatch):
    from crystallm.storage import run_folder

    finish = run_folder.RunFolder.finish
    asked = ("relax", "cifs", *OPTIONS, "--best", 1, "--out", "out", "--quiet")

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.RunFolder, "finish", killed)
    assert crystallm(*asked)[0] == 130
    assert not (tmp_path / "out" / "results.parquet").exists()
    monkeypatch.setattr(run_folder.RunFolder, "finish", finish)
    monkeypatch.setattr("crystallm.pipelines.relax._row", lambda *_: pytest.fail("relaxed again"))
    code, _, err = crystallm(*asked)
    assert (code, err) == (0, "")
    ranks = [row["rank"] for row in parquet.read_table("out/results.parquet").to_pylist()]
    assert sorted(rank for rank in ranks if rank) == [1, 1, 2, 3, 4]


def test_rows_are_told_as_json(crystallm):
    code, out, _ = crystallm("relax", "cifs/rocksalt.cif", *OPTIONS, "--steps", 1, "--json")
    (row,) = map(json.loads, out.splitlines())
    assert code == 0
    assert (row["id"], row["steps"], row["converged"], "cif" in row) == ("rocksalt", 1, False, False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "no crystals: name a folder"),
        (("cifs", "--energy", "dft"), 2, "no energy model 'dft'"),
        (("cifs", *OPTIONS, "--fmax", "0"), 2, "fmax = '0'"),
        (("cifs", *OPTIONS, "--trajectory"), 2, "--trajectory needs --out"),
        (("cifs", *OPTIONS, "--best", "0"), 2, "best = '0'"),
        (("cifs", *OPTIONS[:-1], "-1"), 2, "timeout = '-1'"),
        (("cifs", "--energy", "energies:unloadable", "--workers", 1), 1, "the weights are gone"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_line(crystallm, arguments, code, said):
    found, out, err = crystallm("relax", *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_missing_extra_is_told_in_one_line(crystallm, monkeypatch):
    from crystallm.energy import registry

    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    code, _, err = crystallm("relax", "cifs")
    assert (code, err) == (
        1,
        "crystallm: the energy model 'chgnet' needs chgnet and ase: pip install 'crystallm[energy]'\n",
    )
