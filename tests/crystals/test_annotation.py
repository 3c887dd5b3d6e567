"""Validity and energies of many crystals, or the reasons why there are none."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import NoReturn

import pytest

from crystallm.crystals import annotation
from crystallm.crystals.annotation import CHECKED_HERE, missing_energies
from crystallm.crystals.crystal import Crystal, Source
from crystallm.energy import calculations
from crystallm.energy.options import EnergyOptions
from crystallm.execution.pool import Inline
from crystallm.execution.tasks import Failure
from crystallm.language import get_language
from crystallm.references.lookup import Relative

LANGUAGE = get_language("orbits")
RUTILE = "<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V-5 .7 c-9 .3 0.30 2' <end>"


class NoExecutor(Executor):
    """Runs nothing."""

    def submit(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("a task")


@pytest.fixture
def crystals():
    whole = [Crystal(LANGUAGE, LANGUAGE.ids(RUTILE)) for _ in range(2)]
    cut_off = Crystal(LANGUAGE, LANGUAGE.ids(RUTILE)[:9], ended=False)
    found = [*whole, cut_off]
    annotation.validate(found, Inline())
    return found


def test_validity_is_that_of_the_checks(crystals):
    alone = Crystal(LANGUAGE, LANGUAGE.ids(RUTILE)).validity
    assert crystals[0].validity == crystals[1].validity == alone
    assert not crystals[2].validity.valid
    assert "unfinished" in crystals[2].validity.reasons[0]


def test_a_few_crystals_of_known_ones_are_checked_without_a_worker_process():
    source = Source("references", 0, 0, "TiO2", relative=Relative("rutile", "lab", "SnO2", 0.3))
    known = [Crystal(LANGUAGE, LANGUAGE.ids(RUTILE), source=source) for _ in range(CHECKED_HERE + 1)]
    annotation.validate(known[:CHECKED_HERE], NoExecutor())
    assert all(crystal.validity.plausible for crystal in known[:CHECKED_HERE])
    for crystals in (known, [*known[:1], Crystal(LANGUAGE, LANGUAGE.ids(RUTILE))]):
        with pytest.raises(AssertionError, match="a task"):
            annotation.validate(crystals, NoExecutor())


def test_energies_come_with_reasons_for_those_that_are_missing(crystals, monkeypatch):
    def score(structures, model, **_):
        assert model == "mine"
        return [-9.0, Failure("too slow")][: len(structures)]

    monkeypatch.setattr(calculations, "score", score)
    annotation.add_energies(crystals, EnergyOptions(energy="mine"), device="cpu", executor=Inline())
    assert [crystal.energy for crystal in crystals] == [-9.0, None, None]
    assert [crystal.energy_reason for crystal in crystals] == [None, "too slow", "no crystal"]
    assert {crystal.formation_energy for crystal in crystals} == {None}


def test_without_an_energy_model_nothing_is_computed(crystals, monkeypatch):
    monkeypatch.setattr(calculations, "score", None)
    annotation.add_energies(crystals, EnergyOptions(), executor=Inline())
    assert {crystal.energy_reason for crystal in crystals} == {None}


def test_crystals_without_an_energy_are_counted_with_the_most_frequent_reason():
    assert missing_energies([(-3.0, None), (None, None)]) == ""  # none was wanted of the second
    failed = [(None, "EMT has no Na")] * 3
    assert missing_energies(failed) == "3 of 3 have no energy: EMT has no Na"
    mixed = [(-3.0, None), (None, "took longer than 60 s"), *failed]
    assert missing_energies(mixed) == "4 of 5 have no energy: EMT has no Na (3 times; other reasons: 1)"
