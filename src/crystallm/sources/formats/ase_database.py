"""Read databases of ASE (.db, SQLite), without ASE.

ASE's own reader creates tables in foreign databases, and fetches all rows before it returns the first. Here
the file is opened read-only, and only numbers, positions, cell, periodicity and the id among the key-value
pairs are read.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, NoCrystalsError, clean, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ID_KEYS = ("material_id", "mat_id", "uid", "name")
LARGEST_CELL = 1_000_000_000
"""Maximum size of a value that is read, bytes; other values may be larger."""
_SELECT = "SELECT id, numbers, positions, cell, pbc, key_value_pairs FROM systems ORDER BY id"


def read_database(path: Path) -> Iterator[Entry]:
    """Yield the crystals of a database by their number; see `sources.read`."""
    found = False
    for ending in ("-wal", "-journal"):
        beside = path.with_name(path.name + ending)
        if beside.is_file() and beside.stat().st_size:
            raise InputError(f"{str(path)!r} is being written ({beside.name}): close what writes it")
    # immutable: no lock is taken, so that a folder in which one may not write will do.
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with (
        streams.telling(path, sqlite3.Error),
        closing(sqlite3.connect(address, uri=True)) as database,
    ):
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        database.execute("PRAGMA trusted_schema = OFF")
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_CELL)
        _check(database, path)
        for row in database.execute(_SELECT):
            found = True
            yield _entry(row)
    if not found:
        raise NoCrystalsError(f"{str(path)!r} holds no row")


def _check(database: sqlite3.Connection, path: Path) -> None:
    """Reject databases that ASE has not made: a view in place of the table could compute forever."""
    made = database.execute("SELECT type, sql FROM sqlite_master WHERE name = 'systems'").fetchone()
    if made is None or made[0] != "table" or not str(made[1]).upper().startswith("CREATE TABLE"):
        raise InputError(f"{str(path)!r} is SQLite, but no database of ASE: it has no table 'systems'")
    columns = database.execute("PRAGMA table_xinfo(systems)").fetchall()
    wanted = {"id", "numbers", "positions", "cell", "pbc", "key_value_pairs"}
    if not wanted <= {column[1] for column in columns} or any(column[6] for column in columns):
        raise InputError(f"{str(path)!r} has a table 'systems', but it is not that of ASE")


def _entry(row: Sequence[Any]) -> Entry:
    number, *blobs, pbc, pairs = row
    name, split = str(number), ""
    try:
        told = json.loads(pairs) if isinstance(pairs, str) and len(pairs) <= MAX_BYTES else {}
        name = clean(next((told[key] for key in ID_KEYS if told.get(key)), number))
        split = clean(told.get("split") or "")
    except (ValueError, AttributeError, RecursionError):
        pass
    if not all(isinstance(blob, bytes) for blob in blobs) or not isinstance(pbc, int):
        return Entry(name, None, "its row has no numbers, positions or cell", "ase")
    if sum(map(len, blobs)) > MAX_BYTES:
        return too_large(name, sum(map(len, blobs)), "ase", "row")
    import numpy as np

    numbers, positions, cell = blobs
    try:
        content = {
            "numbers": np.frombuffer(numbers, "<i4").tolist(),
            "positions": np.frombuffer(positions, "<f8").reshape(-1, 3).tolist(),
            "cell": np.frombuffer(cell, "<f8").reshape(3, 3).tolist(),
            "pbc": [bool(pbc & bit) for bit in (1, 2, 4)],
        }
    except ValueError:
        return Entry(name, None, "its row has numbers, positions or a cell of another shape", "ase")
    return Entry(name, json.dumps(content), "", "ase", split)
