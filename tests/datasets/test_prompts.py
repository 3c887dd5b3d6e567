"""What to ask for a crystal is its conventional cell, whichever is known, and goes back into a request."""

from __future__ import annotations

import csv
import tarfile
import zipfile

import pytest

from crystallm.datasets import prepare, prompts
from crystallm.datasets.options import PrepareOptions
from crystallm.errors import CrystallmError, InputError
from crystallm.generation import interpretation
from crystallm.pipelines import request_files

CELLS = {
    "rocksalt": ("Na4Cl4", 225), "rutile": ("Ti2O4", 136), "perovskite": ("Sr1Ti1O3", 221),
    "wurtzite": ("Zn2S2", 186), "diamond": ("C8", 227),
}  # fmt: skip


@pytest.fixture(scope="module")
def book(tmp_path_factory, textbook_structures):
    """A CSV of primitive cells, and one row that is none."""
    path = tmp_path_factory.mktemp("book") / "book.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "cif"))
        for name, structure in textbook_structures.items():
            writer.writerow((name, structure.get_primitive_structure().to(fmt="cif")))
        writer.writerow(("noise", "noise"))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory, book):
    folder = tmp_path_factory.mktemp("data") / "data"
    prepare.prepare([f"{book}=test"], folder)
    return folder


def test_a_collection_and_its_data_set_ask_for_the_same(book, data):
    straight = list(prompts.prompts(book, with_group=True))
    assert {p.id: (p.cell, p.space_group) for p in straight if not p.problem} == CELLS
    assert [(p.id, p.problem[:5]) for p in straight if p.problem] == [("noise", "read:")]
    assert list(prompts.prompts(data, with_group=True)) == [p for p in straight if not p.problem]
    assert [p.space_group for p in prompts.prompts(data)] == [None] * 5


def test_two_processes_keep_the_order(book, monkeypatch):
    monkeypatch.setattr(prepare, "UNIT_ROWS", 1)
    assert list(prompts.prompts(book, workers=2)) == list(prompts.prompts(book))


@pytest.mark.parametrize("ending", ["csv", "tar.gz", "tgz", "zip"])
@pytest.mark.parametrize("with_group", [False, True])
def test_prompts_become_requests(tmp_path, book, ending, with_group):
    path = tmp_path / f"asked.{ending}"
    n, skipped = prompts.write(prompts.prompts(book, with_group=with_group), path)
    assert (n, [p.id for p in skipped]) == (5, ["noise"])
    requests = request_files.read_requests(path, n=3)
    plans = [interpretation.interpret(request) for request in requests]
    found = [("".join(f"{s}{k}" for s, k in plan.cell.composition), plan.space_group) for plan in plans]
    assert [cell for cell, _ in found] == [cell for cell, _ in CELLS.values()]
    numbers = [None if group is None else group.number for _, group in found]
    assert numbers == [number if with_group else None for _, number in CELLS.values()]
    assert {request.n for request in requests} == {3}
    again = tmp_path / f"again.{ending}"
    prompts.write(prompts.prompts(book, with_group=with_group), again)
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_archives_hold_texts_of_the_published_language(tmp_path, data):
    prompts.write(prompts.prompts(data), tmp_path / "plain.tar.gz")
    with tarfile.open(tmp_path / "plain.tar.gz") as archive:
        assert archive.getnames() == [f"{name}.txt" for name in CELLS]
        assert archive.extractfile("rocksalt.txt").read() == b"data_Na4Cl4\n"
    prompts.write(prompts.prompts(data, with_group=True), tmp_path / "group.zip")
    with zipfile.ZipFile(tmp_path / "group.zip") as archive:
        lines = archive.read("rutile.txt").decode().splitlines()
    assert lines[0] == "data_Ti2O4"
    assert lines[-1] == "_symmetry_space_group_name_H-M P4_2/mnm"


def test_names_of_files_are_safe_and_told_apart(tmp_path):
    found = [prompts.Prompt(name, "C8") for name in ("../a", "..\\a", ".._a", "")]
    prompts.write(found, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == [".._a.txt", ".._a-2.txt", ".._a-3.txt", "_.txt"]


def test_a_group_without_a_token_is_skipped_by_name(tmp_path):
    n, skipped = prompts.write(
        [prompts.Prompt("x", "C8", 168), prompts.Prompt("y", "C8")], tmp_path / "x.zip"
    )
    assert (n, skipped[0].id) == (1, "x")
    assert "P6" in skipped[0].problem


def test_longer_beginnings_stay_as_they_are(tmp_path):
    beginning = "data_Na4Cl4\nloop_\n_atom_type_symbol\n"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "data_")
        archive.writestr("b.txt", beginning)
    free, long = request_files.read_requests(tmp_path / "x.zip", n=1)
    assert (free.formula, free.prompt) == (None, None)
    assert long.prompt == beginning


def test_what_cannot_be_asked_is_told(tmp_path, book, data):
    with pytest.raises(InputError, match="has no crystal of the split 'train'"):
        list(prompts.prompts(data, split="train"))
    with pytest.raises(InputError, match="is no data set folder"):
        list(prompts.prompts(book, split="test"))
    with pytest.raises(InputError, match=r"ends in \.csv"):
        prompts.write([], tmp_path / "x.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(CrystallmError, match="cannot be written"):
        prompts.write([], tmp_path / "file" / "x.csv")
    bare = tmp_path / "bare"
    prepare.prepare([f"{book}=test"], bare, PrepareOptions(language="none", split="given"))
    with pytest.raises(InputError, match="no symmetry was sought"):
        list(prompts.prompts(bare))
