"""Libraries are built from collections, and resume."""

from __future__ import annotations

import pytest

from crystallm.errors import CrystallmError, InputError
from crystallm.references import build as building
from crystallm.references.library import Library
from crystallm.references.options import LibraryOptions
from known_crystals import REPLACED, with_elements


@pytest.fixture
def cifs(tmp_path):
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, several in REPLACED.items():
        for symbols in several:
            with_elements(name, symbols).to(str(folder / f"{name}-{''.join(symbols)}.cif"))
    with_elements("rutile", ("Ti", "O")).to(str(folder / "again.cif"))
    (folder / "noise.cif").write_text("noise")
    return folder


def test_a_folder_of_cifs_becomes_a_library(cifs, tmp_path) -> None:
    out = tmp_path / "l.parquet"
    report = building.build(LibraryOptions(collections=(str(cifs),), library=out))
    n = sum(map(len, REPLACED.values()))
    assert (report.read, report.crystals, report.duplicates, report.rejected) == (n + 2, n, 1, {"read": 1})
    known = Library.read(out)
    assert {known.formula(row) for row in range(len(known))} >= {"TiO2", "NaCl", "SrTiO3", "ZnS", "C"}
    assert {known.source(row) for row in range(len(known))} == {"cifs"}
    assert not (tmp_path / "l.parquet.parts").exists()


def test_a_killed_build_does_only_what_is_missing(cifs, tmp_path, monkeypatch) -> None:
    options = LibraryOptions(collections=(str(cifs),), library=tmp_path / "l.parquet")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, "compile_library", killed)
        with pytest.raises(KeyboardInterrupt):
            building.build(options)
    monkeypatch.setattr(building.prepare, "process_rows", killed)  # no unit is left to do
    monkeypatch.setattr(building.prepare, "map_tasks", killed)
    assert building.build(options).crystals == sum(map(len, REPLACED.values()))


def test_one_split_of_a_table(tmp_path) -> None:
    import csv

    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "cif", "split"])
        for split, symbols in (("train", ("Na", "Cl")), ("test", ("K", "Cl"))):
            writer.writerow([split, with_elements("rocksalt", symbols).to(fmt="cif"), split])
    options = LibraryOptions(
        collections=(str(tmp_path / "t.csv"),), library=tmp_path / "l.parquet", only_split="train"
    )
    assert building.build(options).read == 1
    assert Library.read(tmp_path / "l.parquet").id(0) == "train"


def test_wrong_questions(cifs, tmp_path) -> None:
    out = tmp_path / "l.parquet"
    with pytest.raises(InputError, match="no input"):
        building.build(LibraryOptions(library=out))
    with pytest.raises(InputError, match="--out is missing"):
        building.build(LibraryOptions(collections=(str(cifs),)))
    with pytest.raises(InputError, match="the file of a library ends in .parquet"):
        building.build(LibraryOptions(collections=(str(cifs),), library=tmp_path / "l.csv"))
    out.write_bytes(b"")
    with pytest.raises(InputError, match="exists"):
        building.build(LibraryOptions(collections=(str(cifs),), library=out))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "noise.cif").write_text("noise")
    with pytest.raises(CrystallmError, match=r"none of 1 rows is a crystal .*1 at read"):
        building.build(LibraryOptions(collections=(str(tmp_path / "bad"),), library=tmp_path / "n.parquet"))
