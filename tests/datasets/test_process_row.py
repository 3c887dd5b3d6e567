from __future__ import annotations

import base64

import numpy as np
import pytest

from crystallm.datasets import prepare, process_row
from crystallm.datasets.options import PrepareOptions
from crystallm.language import get_language
from prepared import BROKEN, rows_of, write_csv


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"max_atoms": 5}, ["perovskite", "wurtzite"]),
        ({"max_volume": 12.0}, ["rutile", "perovskite", "diamond"]),
        ({"min_volume": 12.0}, ["rocksalt", "wurtzite"]),
        ({"min_distance": 2.0}, ["rocksalt", "wurtzite"]),
        ({"min_distance": 1.8}, ["rocksalt", "rutile", "perovskite", "wurtzite"]),
    ],
)
def test_filters_keep_what_they_say(tmp_path, cifs, choice, kept):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    report = prepare.prepare([path], tmp_path / "data", PrepareOptions(split_by="given", **choice))
    assert rows_of(tmp_path / "data") == kept
    step = next(iter(choice)).split("_")[1]
    assert report.rejected == {step: 5 - len(kept)}


def process(text, *, symmetry=False, **options):
    row = {"id": "a", "source": "s", "split": "", "text": text, "format": "cif", "problem": "", "values": {}}
    task = {"options": PrepareOptions(**options).model_dump(mode="json"), "symmetry": symmetry, "rows": [row]}
    (record,) = process_row.process_rows(task)
    return record


def test_a_row_becomes_the_tokens_of_its_language(cifs, textbook_structures):
    record = process(cifs["rutile"])
    ids = np.frombuffer(base64.b64decode(record["ids"]), dtype="<u2").tolist()
    assert ids == get_language("orbits").encode(textbook_structures["rutile"])
    assert (record["step"], record["n_tokens"]) == ("", len(ids))
    assert (record["formula"], record["cell"], record["space_group"]) == ("TiO2", "Ti2O4", 136)
    assert record["volume"] == pytest.approx(textbook_structures["rutile"].volume / 2)


def test_without_a_language_the_symmetry_is_determined_on_request(cifs):
    record = process(cifs["rutile"], language="none")
    assert (record["cif"], record["ids"], record["space_group"]) == (cifs["rutile"], None, None)
    record = process(cifs["rutile"], language="none", symmetry=True)
    assert (record["cell"], record["space_group"], record["n_atoms"]) == ("Ti2O4", 136, 6)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_rejected_row_has_its_step_and_one_line(name):
    text, step, reason = BROKEN[name]
    record = process(text)
    if text.strip():  # an empty text is found by the reader
        assert (record["step"], record["ids"]) == (step, None)
        assert reason in record["reason"]
    assert "\n" not in record["reason"]


def test_a_text_that_was_not_read_keeps_its_problem():
    row = {"id": "a", "source": "s", "split": "val", "text": None, "format": "", "problem": "torn\noff"}
    record = process_row.process_row(row, PrepareOptions(), symmetry=False)
    assert (record["step"], record["reason"], record["split"]) == ("read", "torn off", "val")
