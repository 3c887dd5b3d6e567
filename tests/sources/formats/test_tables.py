"""Crystals in the columns of tables."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet

from crystallm.errors import InputError
from crystallm.sources.collection import read
from crystallm.sources.entry import Entry


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


def test_a_table_without_crystals_names_its_columns(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="a, b"):
        list(read(tmp_path / "x.csv"))
