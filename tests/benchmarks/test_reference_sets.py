"""Entries of a benchmark: files, spread, requests."""

from __future__ import annotations

import csv

import pytest

from conftest import textbook
from crystallm.benchmarks.reference_sets import find_set
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
