"""Checks of a whole collection."""

from __future__ import annotations

import pytest

from conftest import textbook
from crystallm.cif import writer
from crystallm.errors import CrystallmError
from crystallm.sources.entry import Entry
from crystallm.validity import collection
from evaluated import ASE_ROCKSALT

pytestmark = pytest.mark.usefixtures("kept")


def test_a_lost_worker_costs_one_verdict(monkeypatch):
    monkeypatch.setattr(collection, "SECONDS", 1e-4)
    row, other = collection.check_entries(
        [Entry("a", writer.to_text(textbook()["rutile"])), Entry("b", None, "why")]
    )
    assert row["reasons"].startswith("not judged: took longer")
    assert other["reasons"] == "not read: why"
    assert not row["valid"] and not other["valid"]  # noqa: PT018 - one claim on both


def test_reasons_are_added_up_by_kind():
    texts = [writer.to_text(structure) for structure in textbook().values()]
    wrong = [text.replace(" 1.0\n", " 0.5\n") for text in texts]
    rows = collection.check_entries([Entry(str(i), text) for i, text in enumerate([*texts, *wrong])])
    summary = collection.summarise(rows)
    assert summary.counts["valid"] == len(texts)
    assert max(summary.reasons.values()) >= 3
    assert summary.record()["shares"]["valid"] == 0.5
    with pytest.raises(CrystallmError, match="no crystal"):
        collection.summarise([])


def test_the_digest_of_a_file_without_names_is_that_of_what_it_says():
    here, there = Entry("here", ASE_ROCKSALT), Entry("there", ASE_ROCKSALT)
    other = Entry("here", ASE_ROCKSALT.replace("Na1 Cl1", "Na1 Br1"))
    assert collection.survey([here]) != collection.survey([there])
    assert collection.survey([here], named=False) == collection.survey([there], named=False)
    assert collection.survey([here], named=False) != collection.survey([other], named=False)
    assert collection.survey([here, there], named=False)[0] == 2
