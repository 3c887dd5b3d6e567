from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystallm.datasets import prepare, selection
from crystallm.datasets.options import PrepareOptions
from crystallm.errors import InputError
from prepared import ALL, contents, rows_of, stretched, write_csv


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
        [path], tmp_path / "data", PrepareOptions(split_by="given", deduplicate="formula-group")
    )
    assert rows_of(tmp_path / "data", formula="NaCl") == ["dense"]
    assert (report.duplicates, report.written, report.read) == (3, 5, 8)
    assert {row["reason"] for row in contents(tmp_path / "data")["rejected.parquet"]} == {
        "cell formula and space group of dense"
    }
    prepare.prepare([path], tmp_path / "text", PrepareOptions(split_by="given", deduplicate="text"))
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
        choices = PrepareOptions(
            split_by="random", val_fraction=10, test_fraction=0.05, seed=seed, deduplicate="none"
        )
        report = prepare.prepare([path], folder, choices)
        assert report.crystals == {"train": 28, "val": 10, "test": 2}
        found.append(rows_of(folder, split="val"))
    assert found[0] == found[1] != found[2]


def test_a_split_by_formula_parts_no_formula(tmp_path, cifs):
    rows = [(f"{name}-{i}", cif) for i in range(4) for name, cif in cifs.items()]
    path = write_csv(tmp_path / "book.csv", rows)
    choices = PrepareOptions(split_by="formula", val_fraction=0.2, test_fraction=0.2, deduplicate="none")
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
    report = prepare.prepare([path], tmp_path / "data", PrepareOptions(split_by=str(file)))
    found = {row["id"]: row["split"] for row in contents(tmp_path / "data")["rows.parquet"]}
    assert found == where
    assert report.rejected == {"split": 2}


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "id,split\na,train\na,val\n", "id,split\na,other\n"])
def test_a_file_of_splits_that_is_none_is_refused(tmp_path, cifs, content):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    (tmp_path / "splits.csv").write_text(content)
    with pytest.raises(InputError, match=r"splits\.csv") as caught:
        prepare.prepare([path], tmp_path / "data", PrepareOptions(split_by=str(tmp_path / "splits.csv")))
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
    with pytest.raises(InputError, match=r"broken cannot be read \(it is not a CIF"):
        prepare.prepare([path], tmp_path / "data", PrepareOptions(split_by="given", exclude=exclude))
    choices = PrepareOptions(split_by="given", exclude=exclude, allow_unreadable=True)
    report = prepare.prepare([path], tmp_path / "data", choices)
    assert rows_of(tmp_path / "data") == ["rocksalt", "perovskite", "wurtzite"]
    assert report.rejected == {"exclude": 2}
    assert report.unreadable_known == 1
    reasons = {row["id"]: row["reason"] for row in contents(tmp_path / "data")["rejected.parquet"]}
    assert reasons == {"diamond": "id: in test.csv", "rutile": "formula and space group: other"}
    by_id = choices.model_copy(update={"exclude_by": ("id",)})
    assert prepare.prepare([path], tmp_path / "ids", by_id).rejected == {"exclude": 1}


@pytest.mark.parametrize("language", ["orbits", "none"])
def test_the_matcher_finds_what_a_test_set_holds(tmp_path, cifs, textbook_structures, language):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    shifted = textbook_structures["wurtzite"].copy()
    shifted.translate_sites(list(range(len(shifted))), [0.1, 0.2, 0.3])
    zincblende = cifs["diamond"].replace("C", "Si")
    exclude = write_csv(tmp_path / "test.csv", [("w", shifted.to(fmt="cif")), ("z", zincblende)])
    choices = PrepareOptions(
        language=language, split_by="given", exclude=(exclude,), exclude_by=("structure",)
    )
    report = prepare.prepare([path], tmp_path / "data", choices)
    assert report.rejected == {"exclude": 1}
    assert contents(tmp_path / "data")["rejected.parquet"][0]["reason"] == "structure: w"
