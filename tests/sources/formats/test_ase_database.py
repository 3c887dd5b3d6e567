"""Databases of ASE: what is read of a row, and that nothing else is read or written."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest

from crystallm.sources import collection, parsing
from crystallm.sources.formats import ase_database
from kinds import equal, refused, written


def salt_row(**changes):
    """CsCl as ASE keeps it."""
    row = {
        "id": 1,
        "numbers": np.array([55, 17], "<i4").tobytes(),
        "positions": np.array([[0, 0, 0], [2.06, 2.06, 2.06]], "<f8").tobytes(),
        "cell": (np.eye(3) * 4.12).astype("<f8").tobytes(),
        "pbc": 7,
        "key_value_pairs": "{}",
        "data": None,
    }
    return row | changes


def made(path, *rows):
    """A database with the table of ASE and these rows."""
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE systems (id INTEGER PRIMARY KEY, numbers BLOB, positions BLOB, cell BLOB, "
            "pbc INTEGER, key_value_pairs TEXT, data BLOB)"
        )
        database.executemany(
            "INSERT INTO systems VALUES (:id, :numbers, :positions, :cell, :pbc, :key_value_pairs, :data)",
            rows,
        )
    database.close()
    return path


def test_what_ase_writes_has_its_atoms_and_the_names_of_its_rows(tmp_path, textbook_structures):
    found = list(collection.read(written(tmp_path, "all.db", textbook_structures)))
    assert [entry.id for entry in found] == list(textbook_structures)
    for entry, structure in zip(found, textbook_structures.values(), strict=True):
        assert entry.format == "ase"
        equal(parsing.structure(entry.text, entry.format), structure)


@pytest.mark.parametrize(
    ("pairs", "name", "split"),
    [
        ("{}", "1", ""),
        ('{"material_id": "mp-22865", "name": "salt"}', "mp-22865", ""),
        ('{"name": "salt", "split": "val"}', "salt", "val"),
        ('{"uid": ""}', "1", ""),
        ('{"name": 7}', "7", ""),
        ("[1]", "1", ""),
        ("{broken", "1", ""),
        ("[" * 100_000, "1", ""),
        (None, "1", ""),
    ],
)
def test_a_row_is_named_by_its_pairs_or_else_by_its_number(tmp_path, pairs, name, split):
    (entry,) = collection.read(made(tmp_path / "x.db", salt_row(key_value_pairs=pairs)))
    assert (entry.id, entry.split) == (name, split)
    assert parsing.structure(entry.text, "ase").composition.reduced_formula == "CsCl"


def test_rows_come_by_their_number_and_one_that_is_broken_stops_nothing(tmp_path):
    rows = [
        salt_row(id=9),
        salt_row(id=2, numbers=None),
        salt_row(id=3, cell=b"\0" * 8),
        salt_row(id=4, positions="text"),
        salt_row(id=5, pbc=None),
    ]
    found = list(collection.read(made(tmp_path / "x.db", *rows)))
    assert [entry.id for entry in found] == ["2", "3", "4", "5", "9"]
    assert [entry.problem for entry in found] == [
        "its row has no numbers, positions or cell",
        "its row has numbers, positions or a cell of another shape",
        "its row has no numbers, positions or cell",
        "its row has no numbers, positions or cell",
        "",
    ]


def test_what_is_not_periodic_on_all_sides_is_no_crystal(tmp_path):
    (entry,) = collection.read(made(tmp_path / "x.db", salt_row(pbc=3)))
    assert json.loads(entry.text)["pbc"] == [True, True, False]
    with pytest.raises(ValueError, match="periodic"):
        parsing.structure(entry.text, entry.format)


def test_a_huge_row_is_named_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(ase_database, "MAX_BYTES", 100)
    (entry,) = collection.read(made(tmp_path / "x.db", salt_row()))
    assert entry.text is None
    assert "row" in entry.problem


def test_other_data_of_a_row_are_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(ase_database, "LARGEST_CELL", 1000)
    (entry,) = collection.read(made(tmp_path / "x.db", salt_row(data=b"\0" * 100_000)))
    assert entry.problem == ""


def test_an_empty_database_is_refused(tmp_path):
    assert "holds no row" in refused(made(tmp_path / "x.db"))


def test_a_database_is_opened_to_be_read_alone(tmp_path, textbook_structures):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = written(folder, "all.db", textbook_structures)
    before = path.read_bytes()
    path.chmod(0o400)
    folder.chmod(0o500)
    try:
        assert len(list(collection.read(path))) == 5
    finally:
        folder.chmod(0o700)
    assert path.read_bytes() == before
    assert [found.name for found in folder.iterdir()] == ["all.db"]
    (folder / "all.db-journal").write_bytes(b"x")
    assert "is being written" in refused(path)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE crystals (id)",
        "CREATE TABLE systems (id)",
        "CREATE VIEW systems AS WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT 1 FROM t) SELECT i FROM t",
        "CREATE TABLE systems (id, positions, cell, pbc, key_value_pairs, numbers AS (zeroblob(1000)))",
    ],
)
def test_other_databases_are_refused(tmp_path, statement):
    with sqlite3.connect(tmp_path / "x.db") as database:
        database.execute(statement)
    database.close()
    before = (tmp_path / "x.db").read_bytes()
    refused(tmp_path / "x.db")
    assert (tmp_path / "x.db").read_bytes() == before
