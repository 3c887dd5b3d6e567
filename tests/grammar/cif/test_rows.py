"""Atom rows: which may follow so that the composition can be filled."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from crystallm.cif import parser
from crystallm.grammar.cif.rows import blocks
from crystallm.grammar.cif.state import CifGrammar
from walks import follow, written

HERE = Path(__file__).parents[2]

NEVER = (0, 0)  # no rewriting


def golden():
    with gzip.open(HERE / "golden" / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_a_position_without_free_coordinates_is_used_up():
    # In Pm-3m only 1a and 1b hold one atom: with Cs on one of them, Cl takes the other.
    rules = CifGrammar("full", {"Cs": 1, "Cl": 1}, 221, NEVER)
    for seed in range(20):
        rows = parser.parse(written(rules, random.Random(seed))).rows
        assert {(abs(r.x), abs(r.y), abs(r.z)) for r in rows} == {(0.0, 0.0, 0.0), (0.5, 0.5, 0.5)}


def test_the_first_row_leaves_room_for_those_behind_it():
    # Two atoms of one element on the two positions: the one at the origin has to come first.
    rows = parser.parse(written(CifGrammar("full", {"Cs": 2}, 221, NEVER), random.Random(0))).rows
    assert [(abs(r.x), r.y, r.z) for r in rows] == [(0.0, 0.0, 0.0), (0.5, 0.5, 0.5)] or rows[0].y == 0


def test_elements_of_equal_electronegativity_share_a_block():
    assert blocks(["I", "Rb", "K", "Ar", "He"]) == [["K", "Rb"], ["I"], ["Ar", "He"]]
    (row,) = [row for row in golden() if row["id"] == "mp-1110633"]  # Rb 8, then K 4
    state, _ = follow(CifGrammar("full"), row["ids"])
    assert not state.allowed()
