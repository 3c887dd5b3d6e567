"""Files in the formats of other programs."""

from __future__ import annotations

import importlib.util

import pytest
from pyarrow import parquet

from crystallm.export import collection as export_collection

with_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


@pytest.mark.parametrize(
    ("name", "cell", "fact"),
    [
        ("valid", "False", False), ("valid", "TRUE", True), ("valid", "perhaps", None), ("valid", True, True),
        ("energy", "-3.5", -3.5), ("energy", "", None), ("energy", "low", None), ("energy", "nan", None),
        ("seed", str(2**63 + 1), 2**63 + 1), ("rank", "3.0", 3), ("rank", "3.5", None), ("rank", "x", None),
        ("reasons", "1.0", "1.0"), ("reasons", "", None), ("energy", -1.0, -1.0),
    ],
)  # fmt: skip
def test_cells_of_texts_have_the_types_of_their_columns(name, cell, fact):
    found = export_collection._fact(name, cell)
    assert (type(found), found) == (type(fact), fact)


@with_ase
def test_names_that_read_as_numbers_go_into_a_database(tmp_path, textbook_structures):
    from ase.db import connect

    names = ["2024_01_05", "12", "1e5", "nan", "True", "mp-1"]
    (tmp_path / "c").mkdir()
    for name in names:
        textbook_structures["rocksalt"].to(filename=str(tmp_path / "c" / f"{name}.cif"))
    found = export_collection.export(tmp_path / "c", "ase", tmp_path / "c.db")
    assert (found.n, found.skipped) == (6, ())
    told = {row.material_id for row in connect(found.path).select()}
    assert told == {"#2024_01_05", "#12", "#1e5", "#nan", "#True", "mp-1"}


def test_names_become_no_paths_and_stay_different(tmp_path, textbook_structures):
    import pyarrow as pa

    text = textbook_structures["rocksalt"].to(fmt="cif")
    names = ["../../up", "a/b", "a_b", "", "ü" * 300]
    parquet.write_table(pa.Table.from_pylist([{"id": n, "cif": text} for n in names]), tmp_path / "t.parquet")
    found = export_collection.export(tmp_path / "t.parquet", "cif", tmp_path / "new" / "out")
    written = sorted(path.name for path in found.path.iterdir())
    assert len(written) == len(names)
    assert {"a_b.cif", "a_b-2.cif"} <= set(written)
    assert not list(tmp_path.glob("**/up*"))
