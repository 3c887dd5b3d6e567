"""Hypothetical crystals: formulas of known ones with other elements, and what relatives make of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crystallm.datasets import shards
from crystallm.errors import CrystallmError, InputError
from crystallm.orbits import language
from crystallm.references.library import Library, reduced
from crystallm.references.load import load_library
from crystallm.references.lookup import find_analogues
from crystallm.references.options import HypotheticalOptions
from crystallm.references.prototypes import member_of
from crystallm.references.reading import hypothetical
from crystallm.references.reading.hypothetical import HypotheticalReport, exchanged, write_hypothetical
from crystallm.storage.run_folder import FACTS
from known_crystals import library
from real_crystals import write_prompts

COMPOSITIONS = [{"Ge": 2, "O": 4}, {"Ca": 1, "Ti": 1, "O": 3}, {"Na": 4, "Cl": 4}]


@pytest.fixture
def folder(tmp_path):
    """A data set whose crystals are prompts: no more is read of them."""
    place = tmp_path / "data"
    write_prompts(place, train=COMPOSITIONS, val=[{"Sn": 2, "O": 4}])
    library().write(tmp_path / "known.parquet")
    return place


def write(folder: Path, name: str = "made", **options) -> HypotheticalReport:
    known = (folder.parent / "known.parquet",)
    settings = {"references": known, "formulas": 60, "least_probability": 0.0, "seed": 1} | options
    return write_hypothetical(folder, HypotheticalOptions(out=folder.parent / name, **settings))


def made_in(folder: Path) -> list[list[int]]:
    crystals = shards.load(folder, "train")
    return [crystals.crystal(i).tolist() for i in range(len(crystals))]


def test_one_or_two_elements_are_exchanged_for_similar_ones():
    random = np.random.default_rng(0)
    drawn = [exchanged({"Ca": 1, "Ti": 1, "O": 3}, random) for _ in range(400)]
    known = [counts for counts in drawn if counts is not None]
    assert len(known) > 300
    assert all(list(counts.values()) == [1, 1, 3] for counts in known)
    changed = [len(counts.keys() - {"Ca", "Ti", "O"}) for counts in known]
    assert set(changed) <= {0, 1, 2}  # 0: two of them have changed places
    assert changed.count(1) > 100
    assert changed.count(2) > 100
    replaced = [next(iter(counts)) for counts in known]
    assert replaced.count("Sr") > 3 * max(1, replaced.count("Cl"))


def test_crystals_are_the_most_probable_ones_of_their_formulas(folder):
    report = write(folder)
    crystals = made_in(folder.parent / "made")
    assert report.formulas > 10
    assert report.crystals == len(crystals) > 10
    assert report.tokens == sum(map(len, crystals))
    facts = shards.facts(folder.parent / "made")
    assert (facts["language"], facts["crystals"]) == ("orbits", {"train": report.crystals})
    known = load_library([str(folder.parent / "known.parquet")])
    by_formula: dict[str, list[list[int]]] = {}
    for ids in crystals:
        description = language.from_ids(ids)
        by_formula.setdefault(reduced(dict(description.composition)), []).append(ids)
    assert len(by_formula) == report.formulas - report.without
    for found in by_formula.values():
        counts = dict(language.from_ids(found[0]).composition)
        best = [language.to_ids(one.description) for one in find_analogues(known, counts, 2)]
        assert found[0] == best[0]
        assert len(found) <= hypothetical.PER_FORMULA


def test_formulas_that_are_known_held_out_or_excluded_are_left_out(folder):
    write(folder, formulas=400)
    formulas = {reduced(dict(language.from_ids(ids).composition)) for ids in made_in(folder.parent / "made")}
    known = load_library([str(folder.parent / "known.parquet")])
    assert not formulas & {known.formula(row) for row in range(len(known))}
    assert "SnO2" not in formulas
    excluded = sorted(formulas)[:5]
    crystals = [language.from_ids(ids) for ids in made_in(folder.parent / "made")]
    Library.of(
        (reduced(dict(crystal.composition)), "test", member_of(crystal))
        for crystal in crystals
        if reduced(dict(crystal.composition)) in excluded
    ).write(folder.parent / "excluded.parquet")
    write(folder, "rest", formulas=400, exclude=(str(folder.parent / "excluded.parquet"),))
    rest = {reduced(dict(language.from_ids(ids).composition)) for ids in made_in(folder.parent / "rest")}
    assert rest
    assert not rest & set(excluded)


def test_improbable_crystals_are_left_out(folder):
    everything = write(folder)
    probable = write(folder, "probable", least_probability=0.2)
    assert probable.crystals < everything.crystals
    assert probable.without > everything.without
    assert {tuple(ids) for ids in made_in(folder.parent / "probable")} < {
        tuple(ids) for ids in made_in(folder.parent / "made")
    }


def test_a_killed_run_goes_on_and_writes_the_same(folder, monkeypatch):
    monkeypatch.setattr(hypothetical, "UNIT_SIZE", 10)
    write(folder, "whole", formulas=120)
    whole, n_calls = hypothetical.make, []

    def die_once(task):
        n_calls.append(task["number"])
        if len(n_calls) == 9:
            raise KeyboardInterrupt
        return whole(task)

    monkeypatch.setattr(hypothetical, "make", die_once)
    with pytest.raises(KeyboardInterrupt):
        write(folder, formulas=120)
    assert not (folder.parent / "made" / FACTS).exists()
    write(folder, formulas=120)
    assert sorted(set(n_calls)) == list(range(12))
    assert n_calls.count(0) == 1
    assert made_in(folder.parent / "made") == made_in(folder.parent / "whole")
    formulas = [reduced(dict(language.from_ids(ids).composition)) for ids in made_in(folder.parent / "made")]
    assert len(set(map(tuple, made_in(folder.parent / "made")))) == len(formulas)
    assert not list(folder.parent.glob("*.parts"))


def test_what_cannot_be_made_is_one_line(folder):
    with pytest.raises(InputError, match="--out is missing"):
        write_hypothetical(folder, HypotheticalOptions())
    with pytest.raises(CrystallmError, match=r"none of \d+ formulas has a probable crystal"):
        write(folder, least_probability=1.0)
    write(folder)
    with pytest.raises(InputError, match="holds a data set: choose another folder"):
        write(folder)
    (folder / FACTS).write_text(json.dumps({"language": "cif", "vocab_size": 371, "crystals": {}}))
    with pytest.raises(InputError, match="in the language 'cif': hypothetical crystals are made in orbits"):
        write(folder, "other")


def test_weights_of_replacements_fall_with_the_distance_of_elements():
    weights = hypothetical._replacements()
    for symbol, near, far in (("Na", "K", "F"), ("Cl", "Br", "Fe"), ("Nd", "Pr", "O")):
        share = dict(zip(weights, np.diff(weights[symbol], prepend=0).tolist(), strict=True))
        assert share[symbol] == 0
        assert share[near] > 3 * share[far]
