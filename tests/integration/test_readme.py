"""The README's commands are run as they stand there, with a network that has learned a textbook by heart."""

from __future__ import annotations

import csv
import gzip
import io
import re
import shlex
import shutil
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from crystallm.cli import app
from crystallm.models import load

ROOT = Path(__file__).parents[2]


def blocks(kind: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("crystallm ")]


@pytest.fixture
def place(tmp_path, monkeypatch, parrot, textbook_structures):
    """A folder in which the README's files are, and where the default model is the parrot."""
    shutil.copytree(parrot, tmp_path / "weights" / "default")
    monkeypatch.setattr(load, "WEIGHTS", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for name in ("train.csv.gz", "val.csv.gz"):
        with gzip.open(tmp_path / name, "wt", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["cif"])
            writer.writerows([structure.to(fmt="cif")] for structure in textbook_structures.values())
    (tmp_path / "my_cifs").mkdir()
    for name, structure in textbook_structures.items():
        structure.to(filename=str(tmp_path / "my_cifs" / f"{name}.cif"))
    (tmp_path / "more.extxyz").write_text(
        '2\nLattice="4.2 0 0 0 4.2 0 0 0 4.2" Properties=species:S:1:pos:R:3\nCs 0 0 0\nCl 2.1 2.1 2.1\n'
    )
    (tmp_path / "benchmarks" / "mp_20").mkdir(parents=True)
    with (tmp_path / "benchmarks" / "mp_20" / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        writer.writerows([name, s.to(fmt="cif")] for name, s in textbook_structures.items())
    with zipfile.ZipFile(tmp_path / "their_cifs.zip", "w") as archive:
        for name, structure in textbook_structures.items():
            archive.writestr(f"{name}__1.cif", structure.to(fmt="cif"))
    with tarfile.open(tmp_path / "their_cifs.tar.gz", "w:gz") as archive:
        text = textbook_structures["rutile"].to(fmt="cif").encode()
        member = tarfile.TarInfo("rutile.cif")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    (recipe,) = blocks("yaml")
    # As in the README, but smaller: it is the options that are tested, not the machine.
    small = yaml.safe_load(recipe) | {"n_layer": 1, "n_head": 2, "n_embd": 16, "context": 128}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small))
    return tmp_path


def test_the_python_of_the_readme_runs(place, capsys):
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - that is what is tested
    assert capsys.readouterr().out.startswith("P4_2/mnm 62.")


@pytest.mark.usefixtures("kept")
def test_the_commands_of_the_readme_run(place, monkeypatch, capsys):
    from crystallm.validity import checks

    # Verdicts in this process: a worker process takes seconds to start, and has tests of its own.
    monkeypatch.setattr(
        checks,
        "check_many",
        lambda texts, *, what="text", **_: [checks.check(text, what=what) for text in texts],
    )
    found = commands()
    assert len(found) == 26
    for arguments in found:
        if arguments[0] == "relax" and find_spec("ase") is None:
            continue
        # Minutes of training, or hundreds of steps down a slope, for a minute of testing would be long.
        quick = {"--minutes": "0.01", "--steps": "10"}
        short = [
            quick.get(previous, word) for previous, word in zip(["", *arguments], arguments, strict=False)
        ]
        # CHGNet takes longer to load than all the rest.
        short = ["energies:morse" if word == "chgnet" else word for word in short]
        if "--relax" in short and find_spec("ase") is None:
            short.remove("--relax")
        more = (
            ["--workers", "1"] if short[0] in ("prepare", "prompts", "benchmark", "evaluate", "relax") else []
        )
        assert app.run([*short, *more]) == 0, (arguments, capsys.readouterr().err)
    assert (place / "out" / "rutile" / "results.parquet").exists()
    assert (place / "out" / "list" / "results.parquet").exists()
    if find_spec("ase") is not None:
        assert (place / "out" / "relaxed" / "results.parquet").exists()
    for report in ("judged", "theirs", "mp_20"):
        assert (place / "out" / report / "report.html").exists()
    for run in ("run", "further"):
        assert (place / run / "model" / "config.json").exists()
        assert (place / run / "loss.png").exists()
