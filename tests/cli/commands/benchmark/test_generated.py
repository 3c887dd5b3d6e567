"""`crystallm benchmark novelty` and `unconditional`."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import real_crystals
from crystallm.benchmarks import fingerprints, unconditional
from crystallm.benchmarks.fingerprints import CrystalDescription
from crystallm.cli.app import run
from crystallm.cli.commands.benchmark.generated import read_hull
from crystallm.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from crystallm.benchmarks.unconditional import CutOffs

CELLS = (
    [[1, 1, 0], [0, 1, 0], [0, 0, 2]],
    [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    [[1, 0, 0], [0, 1, 1], [0, 0, 1]],
)

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[3] / "golden" / "unconditional.json.gz").read_bytes())
)


def cif(structure: Structure) -> str:
    return str(structure.to(fmt="cif"))


def told(structure: Structure, seed: int = 0) -> Structure:
    return real_crystals.told_otherwise(structure, np.random.default_rng(seed), CELLS[seed % 3])


@pytest.fixture
def place(tmp_path, textbook_structures) -> Any:
    """A folder of crystals, one of them empty, a file of known ones, and a file of energies."""
    (tmp_path / "made").mkdir()
    for name, structure in textbook_structures.items():
        (tmp_path / "made" / f"{name}.cif").write_text(cif(structure))
    (tmp_path / "made" / "again.cif").write_text(cif(told(textbook_structures["rutile"])))
    (tmp_path / "made" / "empty.cif").touch()
    with gzip.open(tmp_path / "known.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["material_id", "cif"], ["mp-2657", cif(textbook_structures["rutile"])]])
    (tmp_path / "hull.csv").write_text("id,e_above_hull\nrutile,0.0\nagain,0.0\ndiamond,0.09\nempty,\n")
    return tmp_path


def command(*words: object) -> int:
    return run(["benchmark", *map(str, words)])


@pytest.mark.usefixtures("kept")
def test_the_command_scores_a_folder(place, inline, capsys) -> None:
    asked = ("--known", place / "known.csv.gz", "--hull-energies", place / "hull.csv")
    assert command("novelty", place / "made", "--out", place / "a.json", "--json", *asked) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["n_known"] == printed["n_compared"] == printed["n_undecided"] == 1
    assert printed["overall"]["n"] == 7
    assert printed["overall"]["vun"] == pytest.approx(4 / 7)
    assert printed["overall"]["sun"] == 0
    assert printed["overall"]["msun"] == pytest.approx(1 / 7)
    kept = json.loads((place / "a.json").read_text())
    rows = {row["id"]: row for row in kept.pop("crystals")}
    assert kept == printed
    assert rows["again"]["known"] == "mp-2657"
    assert rows["rutile"]["repeats"] == "again"  # by name, again comes first
    assert rows["empty"]["reason"] == "the file is empty"
    assert command("novelty", place / "made", "--out", place / "a.parquet", *asked) == 0
    shown = capsys.readouterr().out
    assert "1 known crystals, 1 of them of a generated formula" in shown
    assert "stable, unique, novel" in shown
    assert pq.read_table(place / "a.parquet").to_pylist() == list(rows.values())
    assert command("novelty", place / "made", "--known", place / "known.csv.gz", "--quiet") == 0
    assert not capsys.readouterr().out


def test_the_command_takes_its_options_from_a_file(place, inline, capsys) -> None:
    config = place / "options.yaml"
    config.write_text(f"generated: {place / 'made'}\nknown: {place / 'known.csv.gz'}\nworkers: 1\n")
    assert command("novelty", "--config", config, "--json") == 0
    assert json.loads(capsys.readouterr().out)["overall"]["sun"] is None
    config.write_text("knwon: x\n")
    assert command("novelty", "--config", config) == 2
    assert "did you mean known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,energy\nrutile,0\n", "has columns id, energy: give it id, e_above_hull"),
        ("id,e_above_hull\nrutile,low\n", "line 2: 'low' is not an energy in eV/atom"),
        ("id,e_above_hull\nrutile,nan\n", "line 2: 'nan' is not an energy in eV/atom"),
        ("id,e_above_hull\nrutile,0\nrutile,1\n", "line 3: 'rutile' occurs twice"),
        ("id,e_above_hull\nsalt,0\n", "holds none of the crystals, such as 'rutile'"),
    ],
)
def test_a_file_of_energies_says_what_is_wrong_with_it(tmp_path, content: str, message: str) -> None:
    (tmp_path / "hull.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_hull(tmp_path / "hull.csv", ["rutile"])
    with pytest.raises(InputError, match="cannot be read"):
        read_hull(tmp_path / "none.csv", ["rutile"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "no crystals"),
        (("MADE",), "with --known"),
        (("MADE", "--known", "KNOWN", "nowhere.csv"), "no file"),
        (("MADE", "--known", "KNOWN", "--out", "a.csv"), "ends in .json or .parquet"),
        (("MADE", "--known", "KNOWN", "--out", "none/a.json"), "make it first"),
    ],
)
def test_the_command_says_what_it_lacks(place, capsys, options, says) -> None:
    paths = {"MADE": place / "made", "KNOWN": place / "known.csv.gz"}
    assert command("novelty", *(paths.get(word, word) for word in options)) == 2
    assert says in capsys.readouterr().err


def crystal(density: float, *, where: float = 0.0, valid: bool = True) -> CrystalDescription:
    """A described crystal with fingerprints at `where` on the first axis of each."""
    means, deviations = fingerprints.scaler()
    return CrystalDescription(
        composition_valid=valid,
        structure_valid=valid,
        density=density,
        n_elements=round(density) % 5 + 1,
        structure=(where, *[0.0] * 60),
        composition=tuple(means + where * deviations * np.eye(132)[0]),
    )


def test_the_command_scores_a_folder_unconditionally(monkeypatch, tmp_path, capsys) -> None:
    (tmp_path / "made").mkdir()
    for i, cif in enumerate(GOLDEN["truth"][:2]):
        (tmp_path / "made" / f"{i}.cif").write_text(cif)
    (tmp_path / "made" / "empty.cif").touch()

    def evaluate(samples: list[Any], truths: list[Any], cut_offs: CutOffs, **options: Any) -> Any:
        assert truths == GOLDEN["truth"][:2]
        assert samples == [*truths, None]
        assert options["n"] == 7
        found = [crystal(2.0), crystal(3.0), CrystalDescription(reason="no crystal")]
        return unconditional.score(found, found[:2], cut_offs)

    monkeypatch.setattr(unconditional, "evaluate", evaluate)
    truth = tmp_path / "truth"
    truth.mkdir()
    for i, cif in enumerate(GOLDEN["truth"][:2]):
        (truth / f"{i}.cif").write_text(cif)
    asked = ("--truth", truth, "--cutoffs", "perov_5", "-n", 7, "--out", tmp_path / "a.json")
    assert command("unconditional", tmp_path / "made", "--json", *asked) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "a.json").read_text())
    assert printed["validity"] == pytest.approx(2 / 3)
    assert printed["coverage_precision"] == 1
    assert kept == printed | {"reasons": {"empty": "the file is empty"}}
    assert command("unconditional", tmp_path / "made", *asked) == 0
    shown = capsys.readouterr().out
    assert "coverage precision of all, %" in shown
    assert "66.67" in shown
    assert command("unconditional", tmp_path / "made", "--quiet", *asked) == 0
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "no crystals"),
        (("PLACE",), "no test set"),
        (("PLACE", "--truth", "PLACE"), "write one of perov_5, carbon_24, mp_20 with --cutoffs"),
        (("PLACE", "--truth", "PLACE", "--cutoffs", "mp_20", "--out", "a.txt"), "ends in .json"),
        (("--config", "CONFIG"), "mp_21"),
    ],
)
def test_the_command_says_what_it_lacks_unconditionally(tmp_path, capsys, options, says) -> None:
    paths = {"PLACE": tmp_path / "a.cif", "CONFIG": tmp_path / "options.yaml"}
    paths["PLACE"].write_text(GOLDEN["truth"][0])
    paths["CONFIG"].write_text("generated: nowhere\ntruth: nowhere\ncutoffs: mp_21\n")
    assert command("unconditional", *(paths.get(word, word) for word in options)) == 2
    assert says in capsys.readouterr().err


def test_the_module_loads_no_heavy_library() -> None:
    code = "import sys, crystallm.benchmarks.unconditional, crystallm.cli.commands.benchmark.generated; h = "
    code += "{'pymatgen.core', 'smact', 'matminer', 'torch', 'scipy', 'pandas'}; "
    code += "print(sorted(h & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
