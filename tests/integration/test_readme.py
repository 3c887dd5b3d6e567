"""README's commands run as printed, with a small network trained on the test crystals."""

from __future__ import annotations

import csv
import gzip
import io
import re
import shlex
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from crystallm.cli import app
from crystallm.models import load

ROOT = Path(__file__).parents[2]


def blocks(kind: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("crystallm ")]


@pytest.fixture
def readme_files(tmp_path, monkeypatch, parrot, textbook_structures):
    """A folder with the files that README and docs name; the default model is the parrot."""
    shutil.copytree(parrot, tmp_path / "weights" / "default")
    monkeypatch.setattr(load, "WEIGHTS", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for name in ("train.csv.gz", "val.csv.gz"):
        with gzip.open(tmp_path / name, "wt", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["cif"])
            writer.writerows([structure.to(fmt="cif")] for structure in textbook_structures.values())
    with gzip.open(tmp_path / "test.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows(
            [["material_id", "cif"], ["mp-1", textbook_structures["rutile"].to(fmt="cif")]]
        )
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
    (recipe,) = blocks("yaml", "docs/how-to/train.md")
    # The options are tested, not the machine, so the network is smaller than the documented one.
    small = yaml.safe_load(recipe) | {"n_layer": 1, "n_head": 2, "n_embd": 16, "context": 128}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small))
    return tmp_path


@pytest.fixture
def checks_here(monkeypatch):
    """Check crystals in this process: a worker process takes seconds to start and has tests of its own."""
    from crystallm.validity import checks

    monkeypatch.setattr(
        checks,
        "check_many",
        lambda texts, *, what="text", **_: [checks.check(text, what=what) for text in texts],
    )


def test_readme_has_at_most_200_lines_and_both_make_targets():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert "\nmake demo\n" in text
    assert "\nmake test\n" in text


def test_every_link_of_readme_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


@pytest.mark.usefixtures("readme_files")
def test_the_python_of_readme_runs(capsys):
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - the code of README is the subject
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"P4_2/mnm 62\.\d Å³, cluster of \d+", first)
    assert second == "data_Ti2O4"


@pytest.mark.usefixtures("kept", "checks_here")
def test_the_commands_of_readme_run(readme_files, capsys):
    lines = commands()
    assert len(lines) == 5
    for words in lines:
        more = ["--workers", "1"] if words[0] == "evaluate" else []
        assert app.run([*words, *more]) == 0, (words, capsys.readouterr().err)
    out = readme_files / "out"
    for name in ("rutile/results.parquet", "checked/report.html", "scores.csv", "rutile.extxyz"):
        assert (out / name).exists(), name
    assert len(list((out / "rutile" / "cifs").glob("*.cif"))) == 3


def test_every_command_of_the_table_exists():
    """The table of tasks names files that a reader has, so only names of commands and options are tested."""
    from crystallm.cli.app import make_app

    commands = make_app()
    helps: dict[str, str] = {}
    rows = re.findall(r"^\|[^|]+\| `(crystallm [^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) >= 12
    for row in rows:
        name, *words = shlex.split(row)[1:]
        if name not in helps:
            helps[name] = " ".join(
                name for argument in commands[name].assemble_argument_collection() for name in argument.names
            )
        for word in words:
            if word.startswith("--"):
                assert word in helps[name].split(), row
