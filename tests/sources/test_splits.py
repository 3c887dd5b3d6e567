"""Splits by name, by input and by file."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.sources import splits


@pytest.mark.parametrize(
    ("name", "split"), [("train", "train"), (" Validation", "val"), ("dev", "val"), ("x", None)]
)
def test_names_of_splits(name, split):
    assert splits.split_named(name) == split


def test_an_input_may_name_its_split(tmp_path):
    (tmp_path / "a=b.csv").touch()
    assert splits.place_and_split(str(tmp_path / "a=b.csv")) == (tmp_path / "a=b.csv", "")
    assert splits.place_and_split(f"{tmp_path}/a=b.csv=valid") == (tmp_path / "a=b.csv", "val")
    with pytest.raises(InputError, match="no split 'all'"):
        splits.place_and_split(f"{tmp_path}=all")
    with pytest.raises(InputError, match="no file or folder"):
        splits.place_and_split(str(tmp_path / "none"))


def test_files_of_splits(tmp_path):
    (tmp_path / "s.csv").write_text("material_id,split\na,train\nb,valid\n")
    (tmp_path / "s.json").write_text('{"train": ["a"], "dev": ["b"]}')
    for name in ("s.csv", "s.json"):
        assert splits.read_splits(tmp_path / name) == {"a": "train", "b": "val"}
    (tmp_path / "s.csv").write_text("id,split\na,train\na,test\n")
    with pytest.raises(InputError, match="puts 'a' into train and test"):
        splits.read_splits(tmp_path / "s.csv")


def test_rows_have_the_split_of_the_input(tmp_path):
    (tmp_path / "rows.csv").write_text("id,cif,split\nx,data_x,test\n")
    (row,) = splits.read_rows(f"{tmp_path}/rows.csv=train")
    assert (row["id"], row["source"], row["split"], row["text"]) == ("x", "rows.csv", "train", "data_x")
    (row,) = splits.read_rows(f"{tmp_path}/rows.csv")
    assert row["split"] == "test"
