"""Crystals in the columns of tables."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet

from crystallm.errors import InputError
from crystallm.sources.collection import read
from crystallm.sources.entry import Entry
from crystallm.sources.formats import tables


def test_a_column_of_cifs_with_ids_and_splits(tmp_path):
    (tmp_path / "x.csv").write_text("material_id,cif,split\nmp-1,data_a,train\nmp-2,,\n")
    first, second = read(tmp_path / "x.csv")
    assert first == Entry("mp-1", "data_a", split="train")
    assert (second.id, second.text) == ("mp-2", None)
    assert second.problem
    parquet.write_table(pa.table({"cif": ["data_a", "data_b"]}), tmp_path / "x.parquet")
    assert [(entry.id, entry.text) for entry in read(tmp_path / "x.parquet")] == [
        ("0", "data_a"),
        ("1", "data_b"),
    ]


def test_a_parquet_file_that_unpacks_to_far_more_is_refused(tmp_path):
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 1500, pa.int32()), pa.array(["x" * 1_000_000]))
    zeros = pa.array([0] * 20_000_000, pa.int8())
    for table in (
        pa.table({"cif": shared}),
        pa.table({"cif": pa.nulls(len(zeros), pa.string()), "id": zeros}),
    ):
        parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
        assert (tmp_path / "bomb.parquet").stat().st_size < 200_000
        with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
            list(tables.read_table(tmp_path / "bomb.parquet"))


def test_texts_that_rows_share_and_columns_of_all_kinds_are_read(tmp_path):
    texts = [f"data_{i % 7}" for i in range(500)]
    columns = {
        "cif": pa.array(texts, pa.large_string()),
        "id": pa.array(range(500)),
        "split": ["train"] * 500,
        "facts": [{"a": "b", "c": [1]}] * 500,
        "pairs": pa.array([[("a", "b")]] * 500, pa.map_(pa.string(), pa.string())),
    }
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=150)
    found = list(tables.rows(tmp_path / "rows.parquet", ("facts", "pairs")))
    assert [(entry.text, entry.id, entry.split) for entry, _ in found] == [
        (text, str(i), "train") for i, text in enumerate(texts)
    ]
    assert found[7][1]["facts"] == {"a": "b", "c": [1]}
    assert found[7][1]["pairs"] == [("a", "b")]


def test_what_a_run_has_thrown_out_is_left_out_unless_asked_for(tmp_path):
    columns = {"request": [0, 0, 0], "sample": [0, 1, 2], "cif": ["data_a", "data_b", "data_c"]}
    path = tmp_path / "results.parquet"
    parquet.write_table(pa.table(columns | {"kept": [False, True, None]}), path)
    assert [entry.id for entry in read(path)] == ["0-1", "0-2"]
    assert [entry.id for entry, _ in tables.rows(path, everything=True)] == ["0-0", "0-1", "0-2"]
    parquet.write_table(pa.table(columns), path)  # of an earlier version
    assert len(list(read(path))) == 3


def test_a_table_without_crystals_names_its_columns(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="a, b"):
        list(read(tmp_path / "x.csv"))
