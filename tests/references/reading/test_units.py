"""Units are made by worker processes; one that fails stops the run with its reason, and the rest is kept."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.errors import CrystallmError
from crystallm.execution.pool import Inline
from crystallm.references.reading.units import make_units, packed, unpacked
from crystallm.storage.run_folder import RunFolder

COLUMNS = {"number": "int64", "ids": "binary"}


def double(task):
    if task["n"] < 0:
        raise ValueError("below zero")
    return [packed([task["n"], 2 * task["n"]])]


def make(path, values):
    folder = RunFolder(path, RunFolder.configuration("test"), COLUMNS)
    make_units(
        double,
        ({"n": n} for n in values),
        folder,
        rows=lambda task, found: [{"number": task["number"], "ids": unpacked(found[0])}],
        size=lambda _: 1,
        total=len(values),
        task="doubling",
        failed="nothing can be doubled",
        executor=Inline(),
    )
    return [(row["number"], np.frombuffer(row["ids"], "<u2").tolist()) for row in folder.stream()]


def test_rows_stand_in_the_order_of_the_units(tmp_path):
    assert make(tmp_path / "run", [3, 1, 40_000 // 2]) == [(0, [3, 6]), (1, [1, 2]), (2, [20_000, 40_000])]


def test_a_failed_unit_is_an_error_with_its_reason(tmp_path):
    with pytest.raises(CrystallmError, match="nothing can be doubled: ValueError: below zero"):
        make(tmp_path / "run", [1, -1])
