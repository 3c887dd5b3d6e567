"""Relatives are added to a data set, crystal by crystal, once."""

from __future__ import annotations

import json

import pytest

from crystallm.datasets import shards
from crystallm.errors import CrystallmError, InputError
from crystallm.orbits import language
from crystallm.references.reading import dataset
from crystallm.references.reading.tokens import relatives_of
from crystallm.storage.run_folder import FACTS
from known_crystals import library
from real_crystals import write_prompts, write_split

COMPOSITIONS = [{"Ge": 2, "O": 4}, {"Ca": 1, "Ti": 1, "O": 3}, {"Na": 7, "Cl": 1}]


@pytest.fixture
def folder(tmp_path):
    """A data set whose crystals are prompts: that is all that a lookup reads."""
    place = tmp_path / "data"
    write_prompts(place, train=COMPOSITIONS, val=COMPOSITIONS[:1])
    return place


@pytest.fixture
def known(tmp_path):
    path = tmp_path / "library.parquet"
    library().write(path)
    return path


def test_each_crystal_gets_the_relatives_of_its_composition(folder, known) -> None:
    report = dataset.add_relatives(folder, [known], 2)
    assert report == (4, 1)
    read = shards.with_relatives(folder, "train").prefixes
    expected = [relatives_of(library(), counts, 2) for counts in COMPOSITIONS]
    assert [read.crystal(i).tolist() for i in range(3)] == expected
    assert shards.n_relatives(folder) == 2
    val = shards.with_relatives(folder, "val").prefixes
    assert val.crystal(0).tolist() == expected[0]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data", "library.parquet"]


def test_a_killed_run_goes_on(folder, known, monkeypatch) -> None:
    write_split(folder, "train", [language.prompt(COMPOSITIONS[i % 3].items(), 1) for i in range(12)])
    monkeypatch.setattr(dataset, "UNIT_SIZE", 1)
    looked_up = []

    def die_once(task):
        looked_up.append(task["number"])
        if len(looked_up) == 10:
            raise KeyboardInterrupt
        return whole(task)

    whole = dataset.look_up
    monkeypatch.setattr(dataset, "look_up", die_once)
    with pytest.raises(KeyboardInterrupt):
        dataset.add_relatives(folder, [known], 4)
    assert shards.n_relatives(folder) == 0
    assert dataset.add_relatives(folder, [known], 4) == (13, 4)
    assert set(looked_up) == set(range(13))
    assert looked_up.count(0) == 1


def test_data_of_another_language_or_without_crystals_are_refused(folder, known) -> None:
    with pytest.raises(InputError, match="no library of known crystals"):
        dataset.add_relatives(folder, [folder / "missing.parquet"], 4)
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps(facts | {"language": "cif"}))
    with pytest.raises(InputError, match="in the language 'cif': relatives are read in orbits alone"):
        dataset.add_relatives(folder, [known], 4)
    with pytest.raises(InputError, match="no data set"):
        dataset.add_relatives(folder.parent / "nothing", [known], 4)


def test_a_lookup_that_fails_says_so_and_changes_nothing(folder, known, monkeypatch) -> None:
    def fail(task):
        raise ValueError("broken")

    monkeypatch.setattr(dataset, "look_up", fail)
    with pytest.raises(CrystallmError, match="relatives of crystals cannot be looked up"):
        dataset.add_relatives(folder, [known], 4)
    assert shards.n_relatives(folder) == 0
