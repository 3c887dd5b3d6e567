"""Collections become data sets: no row vanishes, a kill costs nothing, bad input is told before any work."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import ValidationError

from crystallm.datasets import prepare, selection, shards
from crystallm.datasets import report as datasets_report
from crystallm.datasets.options import PrepareOptions
from crystallm.errors import CrystallmError, InputError
from crystallm.execution import pool as execution_pool
from crystallm.execution import tasks
from crystallm.language import get_language
from crystallm.orbits import augmentation, vocabulary
from crystallm.orbits import language as orbits_language
from crystallm.sources import splits as sources_splits
from real_crystals import published

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
TWICE = POLONIUM.replace("Po", "Fe") + "Fe2 Fe 0.01 0.01 0.01\n"
BROKEN = {
    "polonium": (POLONIUM, "elements", "the element Po"),
    "alloy": (HALF, "ordered", "Po0.5: sites shared"),
    "lost": (POLONIUM.replace("3.345", "nan"), "read", ""),
    "noise": ("noise", "read", "no crystal"),
    "empty": (" \n", "read", "the row has no text"),
    "twice": (TWICE, "distance", "atoms nearer than 0.5 Å"),
}
"""Text, and the step and the reason that refuse it."""

ALL = PrepareOptions(split="given")
"""Every crystal for training, nothing left out."""


@pytest.fixture(autouse=True)
def pictures(request):
    """Reports are drawn where their bytes are compared; in all other tests it would take most of the time."""
    if "whole" not in request.fixturenames:
        request.getfixturevalue("undrawn")


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


def all_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def crystals(folder, split):
    found = shards.load(folder, split)
    return [found.crystal(i).tolist() for i in range(len(found))]


def rows_of(folder, **wanted):
    found = contents(folder)["rows.parquet"]
    return [row["id"] for row in found if all(row[name] == value for name, value in wanted.items())]


def stretched(structure, factor):
    copy = structure.copy()
    copy.scale_lattice(structure.volume * factor)
    return copy.to(fmt="cif")


# --- what is read ---


@pytest.mark.parametrize("name", ["book.csv", "book.csv.gz", "book.parquet"])
def test_a_collection_becomes_a_data_set(tmp_path, cifs, textbook_structures, name):
    path = tmp_path / name
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"id": list(cifs), "cif": list(cifs.values()), "gap": [1.0] * 5}), path)
    else:
        write_csv(path, cifs.items())
    done = []
    report = prepare.prepare([str(path)], tmp_path / "data", ALL, progress=done.append)
    texts = [orbits_language.OrbitsLanguage().encode(structure) for structure in textbook_structures.values()]
    assert crystals(tmp_path / "data", "train") == texts
    assert crystals(tmp_path / "data", "val") == crystals(tmp_path / "data", "test") == []
    assert (report.language, report.read, report.written, report.duplicates) == ("orbits", 5, 5, 0)
    assert report.crystals == {"train": 5, "val": 0, "test": 0}
    assert report.tokens == {"train": sum(map(len, texts)), "val": 0, "test": 0}
    assert report.rejected == report.reasons == {}
    assert done == [5]
    found = contents(tmp_path / "data")
    assert set(found) == {
        *(f"{split}{ending}" for split in sources_splits.SPLITS for ending in (".bin", ".idx.npy")),
        "rows.parquet", "rejected.parquet", "report.json", "report.html", "dataset.json", "run.json",
    }  # fmt: skip
    assert [(row["id"], row["source"], row["split"], row["tokens"]) for row in found["rows.parquet"]] == [
        (name_, name, "train", len(text)) for name_, text in zip(cifs, texts, strict=True)
    ]
    assert [row["formula"] for row in found["rows.parquet"]] == ["NaCl", "TiO2", "SrTiO3", "ZnS", "C"]
    assert [row["cell"] for row in found["rows.parquet"]] == ["Na4Cl4", "Ti2O4", "Sr1Ti1O3", "Zn2S2", "C8"]
    assert [row["space_group"] for row in found["rows.parquet"]] == [225, 136, 221, 186, 227]
    assert found["rejected.parquet"] == []
    facts = json.loads(found["dataset.json"])
    assert facts["language"] == "orbits"
    assert facts["vocab_size"] == len(vocabulary.vocabulary())
    assert facts["crystals"] == report.crystals
    assert facts["tokens"] == report.tokens


def test_the_published_texts_come_out(tmp_path):
    """500 real structures, their tokens made with the original code; three groups have no token there."""
    rows = published()
    path = write_csv(tmp_path / "golden.csv", [(str(i), row["cif"]) for i, row in enumerate(rows)])
    choices = PrepareOptions(language="cif", split="given", max_tokens=10_000, min_distance=0)
    report = prepare.prepare([path], tmp_path / "data", choices)
    assert report.rejected == {}
    assert crystals(tmp_path / "data", "train") == [row["ids"] for row in rows]


def test_a_suffix_decides_the_split_then_the_column_then_training(tmp_path, cifs):
    splits = ["val", "", "test", "train", "Validation"]
    rows = [(name, cif, split) for (name, cif), split in zip(cifs.items(), splits, strict=True)]
    mixed = write_csv(tmp_path / "mixed.csv", rows, ("id", "cif", "split"))
    plain = write_csv(tmp_path / "plain.csv", list(cifs.items())[:1])
    folder = tmp_path / "data"
    prepare.prepare([mixed, f"{mixed}=test", plain], folder)
    found = [row["split"] for row in contents(folder)["rows.parquet"]]
    assert found == ["val", "train", "test", "train", "val", *["test"] * 5, "train"]
    assert {split: len(shards.load(folder, split)) for split in sources_splits.SPLITS} == {
        "train": 3,
        "val": 2,
        "test": 6,
    }


def test_an_id_may_be_zero_and_a_name_may_hold_a_sign(tmp_path, cifs):
    path = tmp_path / "a=b.parquet"
    parquet.write_table(pa.table({"material_id": [0, 7], "cif": list(cifs.values())[:2]}), path)
    assert [(row["id"], row["split"]) for row in sources_splits.read_rows(str(path))] == [
        ("0", ""),
        ("7", ""),
    ]
    assert [row["split"] for row in sources_splits.read_rows(f"{path}=val")] == ["val", "val"]


def test_crystals_without_tokens_are_a_collection_again(tmp_path, cifs):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    whole = prepare.prepare([path], tmp_path / "clean", PrepareOptions(language="none", split="given"))
    assert (whole.written, whole.vocab_size, whole.tokens["train"]) == (5, 0, 0)
    assert not (tmp_path / "clean" / "train.bin").exists()
    found = contents(tmp_path / "clean")["rows.parquet"]
    assert {row["id"]: row["cif"] for row in found} == cifs
    again = str(tmp_path / "clean" / "rows.parquet")
    prepare.prepare([again], tmp_path / "tokens")
    prepare.prepare([path], tmp_path / "straight", ALL)
    assert crystals(tmp_path / "tokens", "train") == crystals(tmp_path / "straight", "train")


def test_crystals_can_be_standardised_without_tokens(tmp_path, textbook_structures):
    primitive = {name: s.get_primitive_structure() for name, s in textbook_structures.items()}
    path = write_csv(tmp_path / "book.csv", [(name, s.to(fmt="cif")) for name, s in primitive.items()])
    choices = PrepareOptions(language="none", split="given", standardise=True)
    prepare.prepare([path], tmp_path / "clean", choices)
    from crystallm.cif import structure_reader

    for row in contents(tmp_path / "clean")["rows.parquet"]:
        assert (
            len(structure_reader.structure(row["cif"]))
            == len(textbook_structures[row["id"]])
            == row["n_atoms"]
        )


# --- what is refused ---


def test_every_row_is_kept_or_refused_with_its_reason(tmp_path, cifs):
    rows = [*cifs.items(), *((name, text) for name, (text, _, _) in BROKEN.items()), ("short",)]
    choices = PrepareOptions(split="given", max_tokens=18)
    report = prepare.prepare([write_csv(tmp_path / "book.csv", rows)], tmp_path / "data", choices)
    found = contents(tmp_path / "data")
    refused = {row["id"]: row for row in found["rejected.parquet"]}
    kept = [row["id"] for row in found["rows.parquet"]]
    assert sorted([*kept, *refused]) == sorted(row[0] for row in rows)
    assert kept == ["rocksalt", "rutile", "perovskite", "diamond"]
    for name, (_, step, reason) in BROKEN.items():
        assert refused[name]["step"] == step
        assert reason in refused[name]["reason"]
        assert "\n" not in refused[name]["reason"]
    assert (refused["wurtzite"]["step"], refused["wurtzite"]["reason"]) == ("length", "more than 18 tokens")
    assert sum(report.rejected.values()) == len(refused) == 8
    assert report.written + len(refused) == report.read == len(rows)
    assert list(report.reasons.values()) == sorted(report.reasons.values(), reverse=True)  # most first
    assert json.loads(found["dataset.json"])["rejected"] == 8
    assert datasets_report.read(tmp_path / "data") == report
    page = found["report.html"].decode()
    assert "refused: ordered" in page
    assert page.count("<img") == 3


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"max_atoms": 5}, ["perovskite", "wurtzite"]),
        ({"max_volume": 12.0}, ["rutile", "perovskite", "diamond"]),
        ({"min_volume": 12.0}, ["rocksalt", "wurtzite"]),
        ({"min_distance": 2.0}, ["rocksalt", "wurtzite"]),
        ({"min_distance": 1.8}, ["rocksalt", "rutile", "perovskite", "wurtzite"]),
    ],
)
def test_filters_keep_what_they_say(tmp_path, cifs, choice, kept):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    report = prepare.prepare([path], tmp_path / "data", PrepareOptions(split="given", **choice))
    assert rows_of(tmp_path / "data") == kept
    step = next(iter(choice)).split("_")[1]
    assert report.rejected == {step: 5 - len(kept)}


def test_a_collection_of_noise_leaves_the_reasons(tmp_path):
    prepare.prepare([write_csv(tmp_path / "book.csv", [("a", "noise")])], tmp_path / "data")
    schema = parquet.read_schema(tmp_path / "data" / "rows.parquet")
    assert schema.names == [
        "id", "source", "split", "formula", "cell", "space_group", "n_atoms", "tokens"
    ]  # fmt: skip
    assert [row["id"] for row in contents(tmp_path / "data")["rejected.parquet"]] == ["a"]
    assert len(shards.load(tmp_path / "data", "train")) == 0


@pytest.fixture
def shelf(tmp_path, cifs):
    """A folder of inputs that are wrong, each in its way."""
    rows = list(cifs.items()) * 80
    packed = write_csv(tmp_path / "good.csv.gz", rows)
    whole = (tmp_path / "good.csv.gz").read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "head.csv").write_text("id,cif\n")
    (tmp_path / "table.xlsx").write_text("")
    write_csv(tmp_path / "other.csv", [("a", "b")], ("id", "text"))
    write_csv(tmp_path / "splits.csv", [("a", "b", "train"), ("a", "b", "holdout")], ("id", "cif", "split"))
    return packed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.csv", "no file or folder .*missing.csv"),
        ("missing.csv=val", "no file or folder .*missing.csv'"),
        ("good.csv.gz=other", "no split 'other'; give one of train, val, test"),
        ("good.csv.gz=", "no file"),
        ("table.xlsx", "no collection by its name"),
        ("head.csv", "holds no row"),
        ("other.csv", "columns: id, text"),
        ("cut.parquet", "cut.parquet"),
    ],
)
def test_an_input_that_cannot_be_read_writes_nothing(tmp_path, shelf, name, message):
    before = sorted(tmp_path.iterdir())
    done = []
    for inputs in ([name], ["good.csv.gz", name]):  # a wrong last input is told before the first is treated
        with pytest.raises(InputError, match=message) as caught:
            prepare.prepare([str(tmp_path / i) for i in inputs], tmp_path / "data", progress=done.append)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert done == []


@pytest.mark.parametrize(
    ("name", "message"), [("cut.csv.gz", "is it truncated?"), ("splits.csv", "row 1: no split 'holdout'")]
)
def test_an_input_that_breaks_off_leaves_no_data_set(tmp_path, shelf, name, message):
    with pytest.raises(InputError, match=message) as caught:
        prepare.prepare([str(tmp_path / name)], tmp_path / "data")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no data set"):
        shards.load(tmp_path / "data", "train")


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("full", InputError, "exists and is not empty: give a new folder"),
        ("file", CrystallmError, "is a file"),
        ("file/data", CrystallmError, "is a file"),
    ],
)
def test_a_place_that_is_taken_is_told_before_any_work(tmp_path, cifs, place, kind, message):
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
    with pytest.raises(CrystallmError, match="cannot be written"):
        prepare.prepare([path], tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"language": "xyz"}, "language"),
        ({"val": 0.7, "test": 0.5}, "leave nothing for training"),
        ({"val": 1.5}, "whole number"),
        ({"min_volume": 5.0, "max_volume": 4.0}, "above max_volume"),
        ({"standardise": True}, "goes with language none"),
        ({"equivalents": 2, "language": "cif"}, "only crystals in the language orbits .* not in 'cif'"),
        ({"equivalents": 2, "language": "none"}, "only crystals in the language orbits .* not in 'none'"),
        ({"equivalents": -1}, "equivalents"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_choices_that_are_none_are_refused(choice, message):
    with pytest.raises(ValidationError, match=message):
        PrepareOptions(**choice)


# --- the steps over all rows ---


def test_of_duplicates_the_densest_stays(tmp_path, cifs, textbook_structures):
    rocksalt = textbook_structures["rocksalt"]
    rows = [
        ("wide", stretched(rocksalt, 1.1)),
        *cifs.items(),
        ("dense", stretched(rocksalt, 0.9)),
        ("dense again", stretched(rocksalt, 0.9)),
    ]
    path = write_csv(tmp_path / "book.csv", rows)
    report = prepare.prepare(
        [path], tmp_path / "data", PrepareOptions(split="given", deduplicate="formula-group")
    )
    assert rows_of(tmp_path / "data", formula="NaCl") == ["dense"]
    assert (report.duplicates, report.written, report.read) == (3, 5, 8)
    assert {row["reason"] for row in contents(tmp_path / "data")["rejected.parquet"]} == {
        "cell formula and space group of dense"
    }
    prepare.prepare([path], tmp_path / "text", PrepareOptions(split="given", deduplicate="text"))
    assert rows_of(tmp_path / "text", formula="NaCl") == ["wide", "rocksalt", "dense"]
    prepare.prepare([path], tmp_path / "all", ALL)
    assert len(rows_of(tmp_path / "all", formula="NaCl")) == 4


def test_no_test_entry_falls_for_a_training_one(tmp_path, cifs, textbook_structures):
    train = write_csv(tmp_path / "train.csv", [("dense", stretched(textbook_structures["rocksalt"], 0.9))])
    test = write_csv(tmp_path / "test.csv", cifs.items())
    choices = PrepareOptions(deduplicate="formula-group")
    prepare.prepare([f"{train}=train", f"{test}=test"], tmp_path / "data", choices)
    assert rows_of(tmp_path / "data") == ["dense", *cifs]


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([1.0, 2.0, 3.0]), st.booleans()), max_size=40)
)
def test_duplicates_are_those_of_a_plain_search(rows):
    keys = np.array([key for key, _, _ in rows], dtype=np.int64)
    volumes = np.array([volume for _, volume, _ in rows])
    kept = np.array([keep for _, _, keep in rows], dtype=bool)
    first = selection.duplicates(keys, volumes, kept)
    for i, (key, _, keep) in enumerate(rows):
        group = [j for j, (k, _, stays) in enumerate(rows) if stays and k == key]
        best = min(group, key=lambda j: (rows[j][1], j), default=i)
        assert first[i] == (-1 if not keep or best == i else best)


@given(
    hashes=st.lists(st.integers(-50, 50), max_size=60),
    val=st.sampled_from([0.0, 0.1, 0.5, 3.0]),
    test=st.sampled_from([0.0, 0.2, 2.0]),
    seed=st.randoms(),
)
@settings(deadline=None)
def test_splits_do_not_depend_on_order_and_keep_groups_together(hashes, val, test, seed):
    rows = np.array(hashes, dtype=np.int64)
    split = selection.shuffled(rows, val, test)
    order = list(range(len(rows)))
    seed.shuffle(order)
    assert (selection.shuffled(rows[order], val, test) == split[order]).all()
    for value in set(hashes):
        assert len(set(split[rows == value].tolist())) == 1
    if len(set(hashes)) == len(hashes):  # each its own group: sizes are exact
        n = len(hashes)
        n_test = min(n, round(test * n) if test < 1 else int(test))
        n_val = round(val * n) if val < 1 else int(val)
        n_val = max(1, n_val) if val and n > 1 else n_val
        assert (split == 2).sum() == n_test
        assert (split == 1).sum() == min(n - n_test, n_val)


def test_random_splits_have_their_sizes_and_change_with_the_seed(tmp_path, cifs):
    rows = [(f"{name}-{i}", cif) for i in range(8) for name, cif in cifs.items()]
    path = write_csv(tmp_path / "book.csv", rows)
    found = []
    for seed in (0, 0, 1):
        folder = tmp_path / f"data{len(found)}"
        choices = PrepareOptions(split="random", val=10, test=0.05, seed=seed, deduplicate="none")
        report = prepare.prepare([path], folder, choices)
        assert report.crystals == {"train": 28, "val": 10, "test": 2}
        found.append(rows_of(folder, split="val"))
    assert found[0] == found[1] != found[2]


def test_a_split_by_formula_parts_no_formula(tmp_path, cifs):
    rows = [(f"{name}-{i}", cif) for i in range(4) for name, cif in cifs.items()]
    path = write_csv(tmp_path / "book.csv", rows)
    choices = PrepareOptions(split="formula", val=0.2, test=0.2, deduplicate="none")
    report = prepare.prepare([path], tmp_path / "data", choices)
    assert report.crystals == {"train": 12, "val": 4, "test": 4}
    places = {}
    for row in contents(tmp_path / "data")["rows.parquet"]:
        places.setdefault(row["formula"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in places.values())


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_file_of_ids_decides_the_split(tmp_path, cifs, kind):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    where = {"rocksalt": "train", "rutile": "val", "diamond": "test"}
    file = tmp_path / f"splits.{kind}"
    if kind == "csv":
        write_csv(file, where.items(), ("id", "split"))
    else:
        file.write_text(json.dumps({split: [name] for name, split in where.items()}))
    report = prepare.prepare([path], tmp_path / "data", PrepareOptions(split=str(file)))
    found = {row["id"]: row["split"] for row in contents(tmp_path / "data")["rows.parquet"]}
    assert found == where
    assert report.rejected == {"split": 2}


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "id,split\na,train\na,val\n", "id,split\na,other\n"])
def test_a_file_of_splits_that_is_none_is_refused(tmp_path, cifs, content):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    (tmp_path / "splits.csv").write_text(content)
    with pytest.raises(InputError, match=r"splits\.csv") as caught:
        prepare.prepare([path], tmp_path / "data", PrepareOptions(split=str(tmp_path / "splits.csv")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_what_a_test_set_holds_is_left_out(tmp_path, cifs, textbook_structures):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    entries = [
        ("diamond", cifs["rocksalt"].replace("Na", "K")),  # only its id is that of a row
        ("other", stretched(textbook_structures["rutile"], 1.3)),  # formula and group; no matcher minds
        ("broken", "noise"),
    ]
    exclude = (write_csv(tmp_path / "test.csv", entries),)
    report = prepare.prepare([path], tmp_path / "data", PrepareOptions(split="given", exclude=exclude))
    assert rows_of(tmp_path / "data") == ["rocksalt", "perovskite", "wurtzite"]
    assert report.rejected == {"exclude": 2}
    assert report.unreadable_known == 1
    reasons = {row["id"]: row["reason"] for row in contents(tmp_path / "data")["rejected.parquet"]}
    assert reasons == {"diamond": "id: in test.csv", "rutile": "formula and space group: other"}
    by_id = PrepareOptions(split="given", exclude=exclude, exclude_by=("id",))
    assert prepare.prepare([path], tmp_path / "ids", by_id).rejected == {"exclude": 1}


@pytest.mark.parametrize("language", ["orbits", "none"])
def test_the_matcher_finds_what_a_test_set_holds(tmp_path, cifs, textbook_structures, language):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    shifted = textbook_structures["wurtzite"].copy()
    shifted.translate_sites(list(range(len(shifted))), [0.1, 0.2, 0.3])
    zincblende = cifs["diamond"].replace("C", "Si")
    exclude = write_csv(tmp_path / "test.csv", [("w", shifted.to(fmt="cif")), ("z", zincblende)])
    choices = PrepareOptions(language=language, split="given", exclude=(exclude,), exclude_by=("structure",))
    report = prepare.prepare([path], tmp_path / "data", choices)
    assert report.rejected == {"exclude": 1}
    assert contents(tmp_path / "data")["rejected.parquet"][0]["reason"] == "structure: w"


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_read_is_written_and_refused_and_duplicates(tmp_path_factory, cifs, data):
    pool = {**cifs, **{name: text for name, (text, _, _) in BROKEN.items()}}
    names = data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1, max_size=12))
    folder = tmp_path_factory.mktemp("rows")
    path = write_csv(folder / "rows.csv", [(f"{i}", pool[name]) for i, name in enumerate(names)])
    choices = PrepareOptions(
        language=data.draw(st.sampled_from(["orbits", "cif", "none"])),
        deduplicate=data.draw(st.sampled_from(["formula-group", "none"])),
        split=data.draw(st.sampled_from(["given", "random", "formula"])),
        max_tokens=data.draw(st.sampled_from([20, 400])),
    )
    report = prepare.prepare([path], folder / "data", choices)
    assert report.read == len(names) == report.written + sum(report.rejected.values()) + report.duplicates
    found = contents(folder / "data")
    ids = [row["id"] for name in ("rows.parquet", "rejected.parquet") for row in found[name]]
    assert sorted(ids, key=int) == [str(i) for i in range(len(names))]


# --- processes, kills, clusters ---

SCRIPT = """
import sys, time
from crystallm.datasets import prepare
from crystallm.datasets.options import PrepareOptions
prepare.UNIT_ROWS = 7
path, out, workers, most = sys.argv[1:]
told = []

def progress(n):
    told.append(n)
    print(n, flush=True)
    if len(told) == int(most):
        time.sleep(600)  # to be killed, however long that takes

prepare.prepare([path], out, Choices(val=0.2), workers=int(workers), progress=progress)
"""
SOME = PrepareOptions(val=0.2)


def write_long(folder, cifs):
    """Some 80 rows, sound and broken ones: 11 units of 7."""
    rows = [(f"{name}-{i}", cif) for i in range(14) for name, cif in cifs.items()]
    rows += [(name, text) for name, (text, _, _) in BROKEN.items()]
    random.Random(1).shuffle(rows)
    return write_csv(folder / "long.csv", rows)


@pytest.fixture
def long(tmp_path, cifs):
    return write_long(tmp_path, cifs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cifs):
    """What one process makes of all these rows when nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "UNIT_ROWS", 7)
        prepare.prepare([write_long(folder, cifs)], folder / "data", SOME)
    return all_bytes(folder / "data")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_killed_run_started_again_ends_with_the_same_bytes(tmp_path, long, whole, n_workers, monkeypatch):
    for told in (3, 6):
        arguments = (long, tmp_path / "data", n_workers, told + 2)
        command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        lines = [run.stdout.readline() for _ in range(told)]
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        assert all(lines)
    assert (tmp_path / "data" / prepare.PARTS).is_dir()
    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    done = []
    prepare.prepare([long], tmp_path / "data", SOME, workers=n_workers, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 76
    assert all_bytes(tmp_path / "data") == whole


def test_a_run_that_fails_at_the_end_is_finished(tmp_path, long, whole, monkeypatch):
    choices = SOME
    with monkeypatch.context() as patch:
        patch.setattr(datasets_report, "html", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare.prepare([long], tmp_path / "data", choices)
    with pytest.raises(InputError, match="no data set"):
        shards.load(tmp_path / "data", "train")
    made = prepare.prepare([long], tmp_path / "data", choices)
    assert all_bytes(tmp_path / "data") == whole
    before = time.time_ns()
    report = prepare.prepare([long], tmp_path / "data", choices)  # what is there is not made again
    assert max(path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()) < before
    assert report == datasets_report.read(tmp_path / "data") == made


def test_a_begun_run_goes_on_with_the_same_question_only(tmp_path, long, cifs, monkeypatch):
    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    done = []

    def stop(n):
        done.append(n)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare([long], tmp_path / "data", progress=stop)
    with pytest.raises(InputError, match="holds another run .symprec was 0.1, now 0.2."):
        prepare.prepare([long], tmp_path / "data", PrepareOptions(symprec=0.2))
    lines = (tmp_path / "long.csv").read_text().replace("-1", "-100")
    (tmp_path / "long.csv").write_text(lines)
    with pytest.raises(InputError, match="input has changed since"):
        prepare.prepare([long], tmp_path / "data")


def test_two_processes_give_what_one_gives(tmp_path, long, whole, monkeypatch):
    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    prepare.prepare([long], tmp_path / "two", SOME, workers=2)
    assert all_bytes(tmp_path / "two") == whole


class Losing(execution_pool.Inline):
    """Loses each unit that holds a row of this name."""

    def submit(self, function, /, task):
        if any(row["id"] == "rutile" for row in task["rows"]):
            function = fall
        return super().submit(function, task)


def fall(_task):
    raise tasks.TaskError("the process died")


def test_a_row_that_costs_its_process_costs_itself_alone(tmp_path, cifs):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    report = prepare.prepare([path], tmp_path / "data", ALL, executor=Losing())
    assert report.rejected == {"lost": 1}
    refused = contents(tmp_path / "data")["rejected.parquet"]
    assert [(row["id"], row["reason"]) for row in refused] == [("rutile", "the process died")]
    assert rows_of(tmp_path / "data") == ["rocksalt", "perovskite", "wurtzite", "diamond"]


def test_a_cluster_that_loses_a_worker_gives_what_one_process_gives(tmp_path, long, whole, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from crystallm.execution import cluster

    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as local,
        cluster.connect(local.scheduler_address) as executor,
    ):
        killed = []

        def kill_one(_done):
            if not killed:
                victim = next(iter(local.workers.values()))
                killed.append(victim.pid)
                os.kill(victim.pid, signal.SIGKILL)

        prepare.prepare([long], tmp_path / "many", SOME, executor=executor, progress=kill_one)
    assert killed
    assert all_bytes(tmp_path / "many") == whole


def test_memory_does_not_grow_with_the_rows(tmp_path, cifs, monkeypatch):
    """What stays of a row between the steps is some numbers: 100 bytes, not its text of 1,000."""
    import tracemalloc

    monkeypatch.setattr(prepare, "UNIT_ROWS", 50)
    peaks = []
    for n in (100, 2000):
        path = write_csv(tmp_path / f"{n}.csv", [(str(i), cifs["diamond"]) for i in range(n)])
        monkeypatch.setattr("crystallm.datasets.process_row.treat", _cheap)
        tracemalloc.start()
        prepare.prepare(
            [path], tmp_path / f"data{n}", PrepareOptions(language="none", split="random", deduplicate="none")
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1900 * 2000


def _cheap(row, _choices):
    from crystallm.datasets.process_row import COLUMNS

    found = dict.fromkeys(COLUMNS) | {"step": "", "reason": "", "formula": "C", "n_atoms": 8}
    return found | {name: row[name] for name in ("id", "source", "split")} | {"cif": row["text"]}


# --- equivalent descriptions ---


def test_training_crystals_are_told_in_other_ways_too(tmp_path, long):
    choices = PrepareOptions(val=0.2, deduplicate="none", equivalents=3)
    report = prepare.prepare([long], tmp_path / "data", choices)
    ours, others = crystals(tmp_path / "data", "train"), crystals(tmp_path / "data", shards.EQUIVALENTS)
    assert len(others) == 3 * len(ours) == report.equivalents
    for number, ids in enumerate(ours):
        assert others[3 * number : 3 * number + 3] == augmentation.augmentations(
            ids, 3, seed=0, number=number
        )
    assert report.told_otherwise == sum(other != ours[i // 3] for i, other in enumerate(others)) > 0
    assert json.loads((tmp_path / "data" / "report.json").read_text())["equivalents"] == len(others)
    assert report.written == sum(report.crystals.values()) == len(rows_of(tmp_path / "data"))
    plain = prepare.prepare([long], tmp_path / "plain", choices.model_copy(update={"equivalents": 0}))
    assert (plain.crystals, plain.equivalents) == (report.crystals, 0)
    assert crystals(tmp_path / "plain", "train") == ours
    assert not (tmp_path / "plain" / "equivalents.bin").exists()
    assert "equivalents" not in json.loads((tmp_path / "plain" / "run.json").read_text())
    with pytest.raises(InputError, match="holds another run .equivalents was 3, now 2."):
        prepare.prepare([long], tmp_path / "data", choices.model_copy(update={"equivalents": 2}))


def test_equivalents_of_a_run_that_failed_are_those_of_one_that_did_not(tmp_path, long, monkeypatch):
    choices = PrepareOptions(val=0.2, deduplicate="none", equivalents=2)
    prepare.prepare([long], tmp_path / "whole", choices)
    several, left = augmentation.augmentations, iter(range(20))

    def failing(*args, **more):
        next(left)
        return several(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(augmentation, "several", failing)
        with pytest.raises(StopIteration):
            prepare.prepare([long], tmp_path / "data", choices)
    with pytest.raises(InputError, match="no data set"):
        shards.load(tmp_path / "data", shards.EQUIVALENTS)
    assert not (tmp_path / "data" / "equivalents.bin").exists()
    prepare.prepare([long], tmp_path / "data", choices, workers=2)
    assert all_bytes(tmp_path / "data") == all_bytes(tmp_path / "whole")


def test_a_language_is_asked_for_its_own_tokens(tmp_path, cifs, textbook_structures):
    path = write_csv(tmp_path / "book.csv", list(cifs.items())[:2])
    prepare.prepare([path], tmp_path / "data", PrepareOptions(language="cif", split="given"))
    language = get_language("cif")
    assert crystals(tmp_path / "data", "train") == [
        language.encode(textbook_structures[name]) for name in ("rocksalt", "rutile")
    ]
    assert shards.load(tmp_path / "data", "train").vocab_size == 371
