"""Crystals in JSON documents and JSON Lines."""

from __future__ import annotations

import json

import pytest

from conftest import textbook
from crystallm.errors import InputError
from crystallm.sources.collection import read


def test_structures_are_found_in_lists_mappings_and_lines(tmp_path):
    record = textbook()["rocksalt"].as_dict()
    documents = {
        "list.json": json.dumps([{"id": "salt", "structure": record}]),
        "mapping.json": json.dumps({"salt": record}),
        "lines.jsonl": json.dumps({"id": "salt", "structure": record}) + "\n",
    }
    for name, text in documents.items():
        (tmp_path / name).write_text(text)
        (entry,) = read(tmp_path / name)
        assert (entry.id, entry.format, entry.problem) == ("salt", "pymatgen", ""), name


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', "[1, 2"])
def test_json_without_crystals_is_one_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="x.json") as error:
        list(read(tmp_path / "x.json"))
    assert "\n" not in str(error.value)
