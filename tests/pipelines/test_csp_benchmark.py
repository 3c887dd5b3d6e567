"""`crystallm benchmark` from end to end: named sets, crystals of others, and a run that was killed."""

from __future__ import annotations

import csv
import json
import zipfile

import pytest
from pyarrow import parquet

from conftest import textbook
from crystallm.cif import writer as cif_writer
from crystallm.cli.app import run
from crystallm.pipelines import csp_benchmark
from killed import kill_after
from known_crystals import library

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


def scored(capsys, *arguments) -> dict[tuple[str, int], dict[str, object]]:
    assert run(["benchmark", *map(str, arguments), "--workers", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    return {(line["name"], line["n"]): line for line in record["lines"]}


def test_a_model_that_knows_a_set_finds_it(sets, parrot, tmp_path, capsys):
    options = ["perov_5", "--data-dir", sets, "-n", "1,2", "--model", parrot, "--temperature", 0]
    lines = scored(capsys, *options, "--out", tmp_path / "out")
    for name in ("as the paper", "all samples", "valid samples", "METRe, cRMSE"):
        assert lines[name, 2]["match_rate"] == 1.0, name
    assert lines["one of 2, by agreement", 1]["match_rate"] == 1.0
    assert lines["as the paper", 1]["rmse"] < 0.01
    rows = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [row["id"] for row in rows] == [name for name in textbook() for _ in range(2)]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "METRe" in report
    assert "data:image/png" in report
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["n_entries"] == 5


def test_the_known_group_may_be_asked_for(sets, parrot, capsys):
    lines = scored(
        capsys, "perov_5", "--data-dir", sets, "-n", 1, "--model", parrot, "--with-group", "--limit", 2
    )
    assert lines["all samples", 1]["match_rate"] == 1.0


def test_known_crystals_are_scored_like_a_model(sets, tmp_path, capsys):
    library().write(tmp_path / "l.parquet")
    options = ["perov_5", "--data-dir", sets, "-n", "1,2", "--no-choose-by-agreement", "--from", "references"]
    options += ["--references", tmp_path / "l.parquet"]
    assert run(["benchmark", *map(str, options)]) == 2
    assert "the library holds 5 crystals of the test" in capsys.readouterr().err
    lines = scored(capsys, *options, "--leave-out", "formula-group", "--out", tmp_path / "out")
    assert lines["all samples", 1]["match_rate"] == pytest.approx(1.0)
    assert "10 known crystals, 5 left out by formula-group" in (tmp_path / "out" / "report.html").read_text()


def test_crystals_of_others_are_scored_over_all_entries(sets, tmp_path, capsys):
    """Two of five entries are in the archive, one of them right at its second sample only."""
    book = textbook()
    wrong = book["rocksalt"].copy()
    wrong.replace_species({"Cl": "F"})
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w") as archive:
        archive.writestr("x/rutile__1.cif", book["rutile"].to(fmt="cif"))
        archive.writestr("x/rocksalt__1.cif", wrong.to(fmt="cif"))
        archive.writestr("x/rocksalt__2.cif", cif_writer.to_text(book["rocksalt"]))
        archive.writestr("x/unknown__1.cif", "data_x\n")
        archive.writestr("x/diamond__1.cif", "")
    lines = scored(capsys, "perov_5", "--data-dir", sets, "-n", "1,2", "--generated", tmp_path / "theirs.zip")
    assert lines["all samples", 1]["match_rate"] == pytest.approx(1 / 5)
    assert lines["all samples", 2]["match_rate"] == pytest.approx(2 / 5)
    assert lines["valid samples", 2]["match_rate"] == pytest.approx(2 / 5)
    assert not any("likelihood" in name for name, _ in lines)
    given = ("--generated", tmp_path / "theirs.zip", "--no-choose-by-agreement")
    fewer = scored(capsys, "perov_5", "--data-dir", sets, "-n", "1,2", *given)
    assert fewer == {key: line for key, line in lines.items() if not key[0].startswith("one of")}
    assert len(fewer) < len(lines)


def test_a_killed_benchmark_goes_on_and_ends_with_the_same_table(sets, parrot, tmp_path, monkeypatch):
    asked = ["benchmark", "perov_5", "-n", "2", "--data-dir", str(sets), "--model", str(parrot)]
    asked += ["--workers", "1", "--quiet", "--device", "cpu", "--out"]
    patches = "from crystallm.pipelines import csp_benchmark; csp_benchmark.BLOCK_SAMPLES = 2"
    patches += "; csp_benchmark.MAX_CHECKED = 2"
    parts = tmp_path / "killed" / "parts"
    done = kill_after(2, [*asked, str(tmp_path / "killed")], parts, at_most=4, patches=patches)
    assert 2 <= len(done) <= 4
    assert not (tmp_path / "killed" / "results.parquet").exists()
    monkeypatch.setattr(csp_benchmark, "BLOCK_SAMPLES", 2)
    for name in ("killed", "whole"):
        assert run([*asked, str(tmp_path / name)]) == 0
    kept = [parquet.read_table(tmp_path / name / "results.parquet") for name in ("killed", "whole")]
    assert kept[0].drop_columns("fold_seconds") == kept[1].drop_columns("fold_seconds")
