"""Energies for a library: of polymorphs alone, once, by one model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from crystallm.errors import InputError
from crystallm.references import energies
from crystallm.references.library import Library
from energies import Morse
from known_crystals import library, member, with_elements

MODEL = "energies:morse"


@pytest.fixture
def path(tmp_path):
    """A library in which ZnO alone has polymorphs."""
    more = Library.of([("rocksalt-ZnO", "lab", member("rocksalt", ("Zn", "O")))])
    Library.joined([library(), more]).write(tmp_path / "l.parquet")
    return tmp_path / "l.parquet"


def test_polymorphs_get_the_energies_of_the_model(path) -> None:
    report = energies.compute(path, MODEL)
    assert report == (len(library()) + 1, 2, 2, 0)
    known = Library.read(path)
    found = {known.id(row): energy for row, energy in enumerate(known.energies) if np.isfinite(energy)}
    assert set(found) == {"rocksalt-ZnO", "wurtzite-ZnO"}
    expected = Morse().one(with_elements("wurtzite", ("Zn", "O")), forces=False).energy
    assert found["wurtzite-ZnO"] == pytest.approx(expected, abs=0.02)  # numbers of a library are rounded


def test_a_second_run_computes_only_what_is_missing(path) -> None:
    energies.compute(path, MODEL)
    before = path.read_bytes()
    assert energies.compute(path, MODEL) == (len(library()) + 1, 2, 0, 0)
    assert path.read_bytes() == before


def test_a_crystal_whose_energy_fails_is_counted_and_tried_again(path) -> None:
    assert energies.compute(path, "energies:nan") == (len(library()) + 1, 0, 0, 2)
    assert energies.compute(path, MODEL).computed == 2


def test_energies_of_another_model_are_refused(path) -> None:
    energies.compute(path, MODEL)
    with pytest.raises(InputError, match="cannot be compared"):
        energies.compute(path, "energies:odd")


def test_a_file_that_is_no_library_is_refused(tmp_path) -> None:
    parquet.write_table(pa.table({"id": ["mp-1"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is no library"):
        energies.compute(tmp_path / "a.parquet", MODEL)


def test_large_cells_are_left_out() -> None:
    twice = Library.joined([library(), library()])
    rows = energies.rows_of_polymorphs(twice, 2)
    assert {twice.id(row).partition("-")[0] for row in rows} == {"rocksalt", "diamond"}
