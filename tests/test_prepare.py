"""Collections become data sets: no row vanishes, and bad input is told before anything is written."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from crystallm import dataset, orbits, prepare
from crystallm.errors import CrystallmError, InputError
from crystallm.language import get_language

POLONIUM = """data_Po
_cell_length_a 3.345
_cell_length_b 3.345
_cell_length_c 3.345
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Po1 Po 0 0 0
"""
"""Simple cubic, Beamer and Maxwell, J. Chem. Phys. 14, 569 (1946). An element without a token."""

HALF = POLONIUM.replace("_fract_z\n", "_fract_z\n_atom_site_occupancy\n").replace("0 0 0", "0 0 0 0.5")
BROKEN = {
    "polonium": (POLONIUM, "encode", "the element Po"),
    "alloy": (HALF, "encode", "Po0.5: sites shared"),
    "lost": (POLONIUM.replace("3.345", "nan"), "encode", "no numbers"),
    "noise": ("noise", "read", "ValueError: "),
    "empty": (" \n", "read", "no text"),
}
"""Text, and the step and the reason that refuse it."""


@pytest.fixture(scope="module")
def cifs(textbook_structures):
    return {name: structure.to(fmt="cif") for name, structure in textbook_structures.items()}


def write_csv(path, rows, columns=("material_id", "cif")):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)


def contents(folder):
    """All files by name; Parquet as rows, since its bytes name the library's version."""
    return {
        path.name: parquet.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()
        for path in folder.iterdir()
    }


def crystals(folder, split):
    found = dataset.load(folder, split)
    return [found.crystal(i).tolist() for i in range(len(found))]


# --- what is read ---


@pytest.mark.parametrize("name", ["book.csv", "book.csv.gz", "book.parquet"])
def test_a_collection_becomes_a_data_set(tmp_path, cifs, textbook_structures, name):
    path = tmp_path / name
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"id": list(cifs), "cif": list(cifs.values()), "gap": [1.0] * 5}), path)
    else:
        write_csv(path, cifs.items())
    done = []
    report = prepare.prepare([str(path)], tmp_path / "data", progress=done.append)
    texts = [orbits.OrbitsLanguage().encode(structure) for structure in textbook_structures.values()]
    assert crystals(tmp_path / "data", "train") == texts
    assert crystals(tmp_path / "data", "val") == crystals(tmp_path / "data", "test") == []
    assert report == prepare.Report(
        "orbits", {"train": 5, "val": 0, "test": 0}, {"train": sum(map(len, texts)), "val": 0, "test": 0}, {}
    )
    assert done == [1, 2, 3, 4, 5]
    found = contents(tmp_path / "data")
    assert [(row["id"], row["source"], row["split"], row["tokens"]) for row in found["rows.parquet"]] == [
        (name_, name, "train", len(text)) for name_, text in zip(cifs, texts, strict=True)
    ]
    assert [row["formula"] for row in found["rows.parquet"]] == ["NaCl", "TiO2", "SrTiO3", "ZnS", "C"]
    assert found["rejected.parquet"] == []
    facts = json.loads(found["dataset.json"])
    assert facts["language"] == "orbits"
    assert facts["vocab_size"] == len(orbits.vocabulary())
    assert facts["crystals"] == report.crystals
    assert facts["tokens"] == report.tokens


def test_the_published_language_can_be_asked_for(tmp_path, cifs, textbook_structures):
    path = write_csv(tmp_path / "book.csv", list(cifs.items())[:2])
    prepare.prepare([path], tmp_path / "data", language="cif")
    language = get_language("cif")
    assert crystals(tmp_path / "data", "train") == [
        language.encode(textbook_structures[name]) for name in ("rocksalt", "rutile")
    ]
    assert dataset.load(tmp_path / "data", "train").vocab_size == 371


def test_a_suffix_decides_the_split_then_the_column_then_training(tmp_path, cifs):
    splits = ["val", "", "test", "train", "val"]
    rows = [(name, cif, split) for (name, cif), split in zip(cifs.items(), splits, strict=True)]
    mixed = write_csv(tmp_path / "mixed.csv", rows, ("id", "cif", "split"))
    plain = write_csv(tmp_path / "plain.csv", list(cifs.items())[:1])
    folder = tmp_path / "data"
    prepare.prepare([mixed, f"{mixed}=test", plain], folder)
    found = [row["split"] for row in contents(folder)["rows.parquet"]]
    assert found == ["val", "train", "test", "train", "val", *["test"] * 5, "train"]
    assert {split: len(dataset.load(folder, split)) for split in prepare.SPLITS} == {
        "train": 3,
        "val": 2,
        "test": 6,
    }


def test_rows_without_an_id_are_numbered(tmp_path, cifs):
    path = write_csv(tmp_path / "book.csv", [(cif,) for cif in cifs.values()], ("cif",))
    assert [row.id for row in prepare.read_rows(path)] == list("01234")


def test_an_id_may_be_zero_and_a_name_may_hold_a_sign(tmp_path, cifs):
    path = tmp_path / "a=b.parquet"
    parquet.write_table(pa.table({"material_id": [0, 7], "cif": list(cifs.values())[:2]}), path)
    assert [(row.id, row.split) for row in prepare.read_rows(str(path))] == [("0", "train"), ("7", "train")]
    assert [row.split for row in prepare.read_rows(f"{path}=val")] == ["val", "val"]


def test_what_a_spreadsheet_saves_is_read(tmp_path):
    path = tmp_path / "book.csv"
    path.write_bytes(b'\xef\xbb\xbfcif,id\r\n"x\r\ny",a\r\n')
    assert list(prepare.read_rows(str(path))) == [prepare.Row("a", "book.csv", "train", "x\r\ny")]


def test_texts_stored_as_bytes_are_read(tmp_path):
    path = tmp_path / "book.parquet"
    parquet.write_table(pa.table({"cif": [b"x", None]}), path)
    assert [row.cif for row in prepare.read_rows(str(path))] == ["x", ""]


# --- what is refused ---


def test_every_row_is_kept_or_refused_with_its_reason(tmp_path, cifs):
    rows = [*cifs.items(), *((name, text) for name, (text, _, _) in BROKEN.items()), ("short",)]
    report = prepare.prepare([write_csv(tmp_path / "book.csv", rows)], tmp_path / "data", max_tokens=22)
    found = contents(tmp_path / "data")
    refused = {row["id"]: row for row in found["rejected.parquet"]}
    kept = [row["id"] for row in found["rows.parquet"]]
    assert sorted([*kept, *refused]) == sorted(row[0] for row in rows)
    assert kept == ["rocksalt", "rutile", "perovskite", "diamond"]
    for name, (_, step, reason) in BROKEN.items():
        assert refused[name]["step"] == step
        assert reason in refused[name]["reason"]
        assert "\n" not in refused[name]["reason"]
    assert (refused["wurtzite"]["step"], refused["wurtzite"]["reason"]) == ("length", "more than 22 tokens")
    assert refused["short"]["reason"] == "no text"
    assert sum(report.rejected.values()) == len(refused) == 7
    assert sum(report.crystals.values()) + len(refused) == len(rows)
    assert report.rejected["read: no text"] == 2
    assert list(report.rejected.values()) == sorted(report.rejected.values(), reverse=True)  # most first
    assert json.loads(found["dataset.json"])["rejected"] == 7


def test_a_collection_of_noise_leaves_the_reasons(tmp_path):
    prepare.prepare([write_csv(tmp_path / "book.csv", [("a", "noise")])], tmp_path / "data")
    schema = parquet.read_schema(tmp_path / "data" / "rows.parquet")
    assert schema.names == ["id", "source", "split", "formula", "tokens"]
    assert [str(kind) for kind in schema.types] == ["string"] * 4 + ["int64"]
    assert [row["id"] for row in contents(tmp_path / "data")["rejected.parquet"]] == ["a"]
    assert len(dataset.load(tmp_path / "data", "train")) == 0


@pytest.fixture
def shelf(tmp_path, cifs):
    """A folder of inputs that are wrong, each in its way."""
    rows = list(cifs.items()) * 400
    packed = write_csv(tmp_path / "good.csv.gz", rows)
    whole = (tmp_path / "good.csv.gz").read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bent.csv.gz").write_bytes(whole[:2000] + b"\x55" * 200 + whole[2200:])
    (tmp_path / "plain.csv.gz").write_text("id,cif\na,b\n")
    (tmp_path / "latin.csv").write_bytes(b"id,cif\na,\xe4\n")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "nothing.csv").write_text("")
    (tmp_path / "head.csv").write_text("id,cif\n")
    (tmp_path / "table.xlsx").write_text("")
    write_csv(tmp_path / "other.csv", [("a", "b")], ("id", "structure"))
    parquet.write_table(pa.table({"id": ["a"], "structure": ["b"]}), tmp_path / "other.parquet")
    write_csv(tmp_path / "splits.csv", [("a", "b", "train"), ("a", "b", "dev")], ("id", "cif", "split"))
    return packed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.csv", "no file .*missing.csv"),
        ("missing.csv=val", "no file .*missing.csv'"),
        ("good.csv.gz=dev", "no split 'dev'; give one of train, val, test"),
        ("good.csv.gz=", "no file"),
        ("table.xlsx", "neither CSV"),
        ("nothing.csv", "has no column 'cif'; its columns: none"),
        ("head.csv", "holds no row"),
        ("other.csv", "has no column 'cif'; its columns: id, structure"),
        ("other.parquet", "has no column 'cif'; its columns: id, structure"),
        ("splits.csv", "splits.csv', row 1: no split 'dev'"),
        ("cut.csv.gz", "cannot be read to its end .*: is it truncated?"),
        ("bent.csv.gz", "cannot be read to its end"),
        ("plain.csv.gz", "cannot be read to its end .*Not a gzipped file"),
        ("latin.csv", "cannot be read to its end .*utf-8"),
        ("cut.parquet", "no readable Parquet file"),
    ],
)
def test_an_input_that_cannot_be_read_writes_nothing(tmp_path, shelf, monkeypatch, name, message):
    monkeypatch.setattr(prepare, "encode_row", lambda row, *_: prepare.Encoded(row.id, "", row.split, [1]))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        prepare.prepare([str(tmp_path / name)], tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["missing.csv", "other.csv", "head.csv", "cut.parquet", "good.csv.gz=dev"])
def test_a_wrong_last_input_is_told_before_the_first_is_encoded(tmp_path, shelf, name):
    done = []
    with pytest.raises(InputError):
        prepare.prepare([shelf, str(tmp_path / name)], tmp_path / "data", progress=done.append)
    assert done == []


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("full", InputError, "exists and is not empty: give a new folder"),
        ("file", CrystallmError, "is a file"),
        ("file/data", CrystallmError, "is a file"),
    ],
)
def test_a_place_that_is_taken_is_told_before_anything_is_encoded(tmp_path, cifs, place, kind, message):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old").write_text("old")
    (tmp_path / "file").write_text("")
    done = []
    with pytest.raises(kind, match=message):
        prepare.prepare([path], tmp_path / place, progress=done.append)
    assert done == []
    assert (tmp_path / "full" / "old").read_text() == "old"


def test_a_folder_without_the_right_to_write_is_told_first(tmp_path, cifs, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as one who has every right
    path = write_csv(tmp_path / "book.csv", cifs.items())
    done = []
    with pytest.raises(CrystallmError, match="cannot be written"):
        prepare.prepare([path], tmp_path / "data", progress=done.append)
    assert done == []


def test_a_language_that_is_none_is_refused(tmp_path, cifs):
    with pytest.raises(InputError, match="no language 'xyz'"):
        prepare.prepare([write_csv(tmp_path / "book.csv", cifs.items())], tmp_path / "data", language="xyz")


# --- processes ---

SCRIPT = """
import multiprocessing, sys
multiprocessing.set_start_method("spawn")
from crystallm.prepare import prepare
prepare([sys.argv[1]], sys.argv[2], workers=2, progress=print)
"""


def test_two_processes_give_what_one_gives_in_a_script_without_a_guard(tmp_path, cifs):
    """Started as on Windows and macOS, where multiprocessing would import the script again."""
    rows = [*cifs.items(), *((name, text) for name, (text, _, _) in BROKEN.items())]
    path = write_csv(tmp_path / "book.csv", rows)
    prepare.prepare([path], tmp_path / "one")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), path, str(tmp_path / "two")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(i) for i in range(1, 11)]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_row_that_costs_its_process_is_refused(tmp_path, cifs, monkeypatch):
    monkeypatch.setattr(prepare, "SECONDS", 1e-9)
    path = write_csv(tmp_path / "book.csv", list(cifs.items())[:1])
    report = prepare.prepare([path], tmp_path / "data", workers=2)
    assert report.rejected == {"lost: took longer than 1e-09 s": 1}
    assert [row["id"] for row in contents(tmp_path / "data")["rejected.parquet"]] == ["rocksalt"]


def test_waves_keep_order_and_count(tmp_path, cifs, monkeypatch):
    monkeypatch.setattr(prepare, "WAVE", 2)
    done = []
    path = write_csv(tmp_path / "book.csv", cifs.items())
    prepare.prepare([path], tmp_path / "data", progress=done.append)
    assert done == [1, 2, 3, 4, 5]
    assert [row["id"] for row in contents(tmp_path / "data")["rows.parquet"]] == list(cifs)
