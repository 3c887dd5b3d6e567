from __future__ import annotations

import pytest
from pyarrow import parquet

from crystallm.errors import CrystallmError
from crystallm.storage import files, tables

COLUMNS = {"name": "string", "n": "int32", "energy": "float64"}
ROWS = [{"name": "a", "n": 1, "energy": -1.5}, {"name": "b", "n": None, "energy": None}]


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_table_has_the_columns_in_their_order(tmp_path, ending):
    path = tmp_path / f"table{ending}"
    tables.write_table(path, ROWS, COLUMNS)
    if ending == ".csv":
        assert path.read_text() == "name,n,energy\na,1,-1.5\nb,,\n"
    else:
        assert tables.read_table(path).to_pylist() == ROWS
        assert tables.read_table(path, ["energy"]).to_pylist() == [{"energy": -1.5}, {"energy": None}]
        assert [str(kind) for kind in parquet.read_schema(path).types] == ["string", "int32", "double"]


def test_metadata_come_back(tmp_path):
    path = tmp_path / "a.parquet"
    files.write_atomically(path, tables.as_parquet(ROWS, COLUMNS, {"unit": "7f"}))
    assert tables.read_metadata(path)["unit"] == "7f"
    files.write_atomically(path, tables.as_parquet(ROWS, COLUMNS))
    assert "unit" not in tables.read_metadata(path)


def test_damaged_and_missing_files_are_one_line(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    for path, message in (("a.parquet", "is damaged"), ("b.parquet", "cannot be read")):
        with pytest.raises(CrystallmError, match=message) as caught:
            tables.read_table(tmp_path / path)
        assert "\n" not in str(caught.value)


def test_a_growing_table_appears_when_it_is_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH", 2)
    path = tmp_path / "a.parquet"
    with tables.TableWriter(path, COLUMNS) as table:
        for i in range(5):
            table.add({"name": str(i), "n": i, "energy": None})
        assert not path.exists()
    assert [row["n"] for row in tables.read_table(path).to_pylist()] == [0, 1, 2, 3, 4]

    def fail():
        with tables.TableWriter(path, COLUMNS) as table:
            table.add(ROWS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(tables.read_table(path)) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]
