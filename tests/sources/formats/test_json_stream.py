"""JSON read element by element."""

from __future__ import annotations

import json

from crystallm.sources.collection import read


def test_an_element_is_an_entry_whatever_its_characters(tmp_path):
    items = [{"id": 'a "quoted" \\ name', "cif": "data_x\n# ä { [ ] }\n"}, {"id": "ü", "cif": "data_y"}]
    for indent in (None, 1):
        (tmp_path / "x.json").write_text(json.dumps(items, indent=indent))
        assert [(entry.id, entry.text) for entry in read(tmp_path / "x.json")] == [
            (item["id"], item["cif"]) for item in items
        ]
