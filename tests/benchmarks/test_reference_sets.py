"""Entries of a benchmark: files, spread, requests."""

from __future__ import annotations

import csv

import pytest

from conftest import textbook
from crystallm.benchmarks.reference_sets import find_data, find_set
from crystallm.errors import InputError

pytestmark = pytest.mark.usefixtures("kept")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder of sets as they are published, with one of five textbook crystals."""
    place = tmp_path_factory.mktemp("benchmark") / "sets" / "perov_5"
    place.mkdir(parents=True)
    with (place / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        writer.writerows([name, structure.to(fmt="cif")] for name, structure in textbook().items())
    return place.parent


def test_where_a_set_is_looked_for_is_said(sets, monkeypatch):
    monkeypatch.delenv("CRYSTALLM_DATA", raising=False)
    with pytest.raises(InputError, match="the folder of mp_20 is unknown"):
        find_set("mp_20")
    with pytest.raises(InputError, match="test.csv.gz"):
        find_set("mp_20", folder=sets)
    monkeypatch.setenv("CRYSTALLM_DATA", str(sets))
    assert find_set("perov_5").name == "test.csv"


def test_data_are_a_file_or_a_set_and_a_misspelt_set_is_suggested(sets, tmp_path):
    assert find_data("perov_5", None, sets) == (str(sets / "perov_5" / "test.csv"), None)
    (tmp_path / "mine.csv").write_text("cif")
    assert find_data(str(tmp_path / "mine.csv"), "val") == (str(tmp_path / "mine.csv"), "val")
    assert find_data("no such.csv=val") == ("no such.csv=val", None)
    with pytest.raises(InputError, match="no file 'mp20': did you mean the set mp_20?"):
        find_data("mp20")
