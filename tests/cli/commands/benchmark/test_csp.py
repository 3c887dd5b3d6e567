"""`crystallm benchmark` on the command line."""

from __future__ import annotations

import csv

import pytest

from conftest import textbook
from crystallm.cli.app import run

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


def test_an_archive_of_other_names_is_refused(sets, tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "rutile.cif").write_text("data_x\n")
    code = run(["benchmark", "perov_5", "--data-dir", str(sets), "--generated", str(tmp_path / "theirs")])
    assert code == 2
    assert "rocksalt__1.cif" in capsys.readouterr().err
