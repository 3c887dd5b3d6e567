"""Wyckoff positions on the grid of printed coordinates."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

from crystallm.cif import tokenizer
from crystallm.grammar.cif.state import CifGrammar

HERE = Path(__file__).parents[2]

WALKS = runpy.run_path(str(HERE.parents[0] / "bench" / "grammar_walks.py"))

NEVER = (0, 0)  # no rewriting


def test_lines_are_not_filled_beyond_what_they_hold():
    # In P6/mmm most of these atoms may end on (0, 0, z), which has room for some 200 orbits.
    counts = {"Ca": 192, "Al": 108, "Si": 192, "O": 384}
    ids, _, _ = WALKS["walk"](CifGrammar("full", counts, 191, NEVER), random.Random(0))
    assert not WALKS["fault"](tokenizer.decode(ids), counts, 191)
