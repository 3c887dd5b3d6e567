from __future__ import annotations

import csv

import pytest

from crystallm.datasets import prepare, prompts
from crystallm.datasets.options import PrepareOptions, PromptOptions
from crystallm.errors import CrystallmError, InputError
from crystallm.generation import interpretation
from crystallm.pipelines import request_files

CELLS = {
    "rocksalt": ("Na4Cl4", 225), "rutile": ("Ti2O4", 136), "perovskite": ("Sr1Ti1O3", 221),
    "wurtzite": ("Zn2S2", 186), "diamond": ("C8", 227),
}  # fmt: skip


@pytest.fixture(scope="module")
def book(tmp_path_factory, textbook_structures):
    """A CSV of primitive cells, and an invalid row."""
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


def read(source, *, workers=1, **options):
    return list(prompts.read(PromptOptions(path=str(source), **options), workers=workers))


def test_a_collection_and_its_data_set_have_the_same_prompts(book, data):
    straight = read(book, with_group=True)
    assert {p.id: (p.cell, p.space_group) for p in straight if not p.problem} == CELLS
    assert [(p.id, p.problem[:5]) for p in straight if p.problem] == [("noise", "read:")]
    assert read(data, with_group=True) == [p for p in straight if not p.problem]
    assert [p.space_group for p in read(data)] == [None] * 5


def test_two_processes_keep_the_order(book, monkeypatch):
    monkeypatch.setattr(prepare, "UNIT_ROWS", 1)
    assert read(book, workers=2) == read(book)


@pytest.mark.parametrize("with_group", [False, True])
def test_prompts_become_requests(tmp_path, book, with_group):
    path = tmp_path / "prompts.csv"
    n, skipped = prompts.write(read(book, with_group=with_group), path)
    assert (n, [p.id for p in skipped]) == (5, ["noise"])
    requests = list(request_files.checked(path, n=3, check=lambda _: None))
    plans = [interpretation.interpret(request) for request in requests]
    cells = ["".join(f"{s}{k}" for s, k in plan.cell.composition) for plan in plans]
    assert cells == [cell for cell, _ in CELLS.values()]
    numbers = [None if plan.space_group is None else plan.space_group.number for plan in plans]
    assert numbers == [number if with_group else None for _, number in CELLS.values()]
    assert {request.n for request in requests} == {3}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_sources_and_files_that_do_not_fit_are_errors(tmp_path, book, data):
    with pytest.raises(InputError, match="has no crystal of the split 'train'"):
        read(data, split="train")
    with pytest.raises(InputError, match="is no data set folder"):
        read(book, split="test")
    with pytest.raises(InputError, match=r"ends in \.csv"):
        prompts.write([], tmp_path / "x.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(CrystallmError, match="cannot be written"):
        prompts.write([], tmp_path / "file" / "x.csv")
    bare = tmp_path / "bare"
    prepare.prepare([f"{book}=test"], bare, PrepareOptions(language="none", split_by="given"))
    with pytest.raises(InputError, match="was prepared without symmetry"):
        read(bare)
