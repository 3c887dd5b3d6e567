"""The rules of the published language: its texts are walks, and all walks end in the crystal asked for."""

from __future__ import annotations

import gzip
import json
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystallm.cif import block as cif_block
from crystallm.cif import parser, tokenizer, writer
from crystallm.crystallography import cells, space_groups
from crystallm.errors import InputError
from crystallm.grammar.cif.coordinates import Placement
from crystallm.grammar.cif.numbers import PHYSICAL, UNITS, next_characters, parameter_limit, volume_limit
from crystallm.grammar.cif.rows import blocks
from crystallm.grammar.cif.state import CifGrammar
from crystallm.grammar.cif.wyckoff_grid import GRID, sites
from crystallm.grammar.composition import MAX_ATOMS, MAX_ELEMENTS

HERE = Path(__file__).parents[2]
WALKS = runpy.run_path(str(HERE.parents[0] / "bench" / "grammar_walks.py"))
# Rows are sorted by coordinates before these are rounded. In this text two rows have x = 1/3 and y = 2/3 up
# to rounding errors, which put (1/3, 2/3, 1/2) before (1/3, 2/3, 0).
EXCEPTIONS = {"mp-1216643"}
NEVER = (0, 0)  # no rewriting


def golden():
    with gzip.open(HERE / "golden" / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class TakenBackError(Exception):
    """A token that put atoms too close."""


def follow(rules, ids):
    """The state behind a text, taken token by token, and how many tokens were a choice."""
    state, n_choices = rules.start([]), 0
    for token in ids:
        n_choices += len(state.allowed()) > 1
        if state.advance(token):
            raise TakenBackError
    return state, n_choices


def written(rules, rng, prompt=()):
    """The text of a walk of uniform choices behind a prompt."""
    state, ids = rules.start(prompt), list(prompt)
    while state.allowed():
        ids.append(rng.choice(list(state.allowed())))
        back = state.advance(ids[-1])
        del ids[len(ids) - back :]
    return tokenizer.decode(ids)


def forced(state):
    """What must be written from here on, up to the next choice."""
    ids = []
    while len(state.allowed()) == 1:
        ids.append(state.allowed()[0])
        state.advance(ids[-1])
    return tokenizer.decode(ids)


def offered(rules, text):
    """What may come behind the beginning of a text, as one string."""
    return tokenizer.decode(sorted(rules.start(tokenizer.encode(text)).allowed()))


# --- published texts ---


def test_published_texts_are_walks_but_for_the_exceptions():
    failed, n_tokens, n_choices = set(), 0, 0
    for row in golden():
        parsed = parser.parse(row["text"])
        try:
            counts, number = dict(parsed.composition), parsed.space_group_number
            state, choices = follow(CifGrammar("full", counts, number, bond_retries=0), row["ids"])
        except (InputError, TakenBackError):
            failed.add(row["id"])
            continue
        assert not state.allowed()
        n_tokens, n_choices = n_tokens + len(row["ids"]), n_choices + choices
    assert failed == EXCEPTIONS
    assert n_choices < 0.2 * n_tokens  # the rest is written, not sampled


@pytest.mark.parametrize("strength", ["full", "syntax"])
def test_published_texts_are_walks_when_nothing_is_asked(strength):
    for row in golden()[::7]:
        if strength == "syntax" or row["id"] not in EXCEPTIONS:
            state, _ = follow(CifGrammar(strength, bond_retries=0), row["ids"])
            assert not state.allowed()


# --- random walks ---


@pytest.mark.parametrize("policy", ["uniform", "first", "last"])
def test_walks_end_in_the_crystal_asked_for(policy):
    rng = random.Random(policy)
    groups = [space_groups.get(symbol) for symbol in tokenizer.space_groups()]
    assert len(groups) == 227
    for group in groups:
        counts = WALKS["from_orbits"](rng, group, 80)
        if writer.formula_unit(counts)[1] < 1:
            continue
        ids, _, _ = WALKS["walk"](CifGrammar("full", counts, group.number, NEVER), rng, policy)
        assert not WALKS["fault"](tokenizer.decode(ids), counts, group.number), (group.symbol, counts)


def test_walks_that_choose_their_group():
    rng = random.Random(1)
    for counts in (
        {"Ti": 2, "O": 4},
        {"Ca": 1, "Ti": 1, "O": 3},
        {"K": 4, "Rb": 8, "Sc": 4, "I": 24},
        {"C": 8},
    ):
        for _ in range(15):
            text = written(CifGrammar("full", counts), rng)
            assert not WALKS["fault"](text, counts, parser.parse(text).space_group_number)


def test_walks_with_nothing_asked_keep_the_limits():
    rng = random.Random(2)
    for _ in range(40):
        state, ids = CifGrammar("full").start([]), []
        while tokenizer.decode(ids[-1:]) != "\n":  # the head line; uniform choices make it long
            ids.append(rng.choice(list(state.allowed())))
            state.advance(ids[-1])
        counts = dict(parser.parse(tokenizer.decode(ids) + MINIMAL).composition)
        assert len(counts) <= MAX_ELEMENTS
        assert sum(counts.values()) <= MAX_ATOMS
        assert list(counts) == [s for block in blocks(counts) for s in block]
        assert writer.formula_unit(counts)[1] >= 1


MINIMAL = (
    "_symmetry_space_group_name_H-M P1\n"
    + "".join(f"{tag} {value}\n" for tag, value in zip(cif_block.CELL, (4, 4, 4, 90, 90, 90), strict=True))
    + "loop_\n"
    + "\n".join(cif_block.ATOM_LOOP)
    + "\nO O0 1 0.0 0.0 0.0 1.0\n"
)


def test_syntax_alone_gives_texts_that_can_be_read():
    rng = random.Random(3)
    prompt = tokenizer.encode("data_Ti2O4\n")
    for _ in range(60):
        parsed = parser.parse(written(CifGrammar("syntax"), rng, prompt))
        assert parsed.printed_number == parsed.space_group_number
        known = {w.multiplicity for w in space_groups.get(parsed.space_group_number).wyckoff}
        assert {row.multiplicity for row in parsed.rows} <= known


# --- what follows is written, what cannot be is not offered ---


def test_all_that_follows_is_forced():
    state = CifGrammar("full", {"Ti": 2, "O": 4}, 136).start([])
    head = forced(state)
    assert head.startswith("data_Ti2O4\nloop_\n_atom_type_symbol\n")
    assert head.endswith("_symmetry_space_group_name_H-M P4_2/mnm\n_cell_length_a ")
    for token in tokenizer.encode("4.6000\n"):
        state.advance(token)
    assert forced(state) == "_cell_length_b 4.6000\n_cell_length_c "
    for token in tokenizer.encode("2.9600\n"):
        state.advance(token)
    rest = forced(state)
    assert "_cell_angle_gamma 90.0000\n_symmetry_Int_Tables_number 136\n" in rest
    assert "_chemical_formula_structural TiO2\n_chemical_formula_sum 'Ti2 O4'\n_cell_volume 62.63" in rest
    for token in tokenizer.encode("36\n"):
        state.advance(token)
    rest = forced(state)
    assert rest.startswith("_cell_formula_units_Z 2\n")
    # Two places for 2 Ti, and one multiplicity for them.
    assert rest.endswith("_atom_site_occupancy\nTi Ti0 2 ")
    assert tokenizer.decode(sorted(state.allowed())) == "0-"


RUTILE = "\n".join(
    (
        writer.head({"Ti": 2, "O": 4}.items()),
        *writer.properties(["Ti", "O"]),
        writer.group_line("P4_2/mnm"),
        "_cell_length_a 4.6000\n_cell_length_b 4.6000\n_cell_length_c 2.9600",
        "_cell_angle_alpha 90.0000\n_cell_angle_beta 90.0000\n_cell_angle_gamma 90.0000",
        "_symmetry_Int_Tables_number 136\n_chemical_formula_structural TiO2\n_chemical_formula_sum 'Ti2 O4'",
        "_cell_volume 62.6336\n_cell_formula_units_Z 2",
        "loop_\n_symmetry_equiv_pos_site_id\n_symmetry_equiv_pos_as_xyz\n1 'x, y, z'",
        "loop_",
        *cif_block.ATOM_LOOP,
        "Ti Ti0 2 0.0000 0.0000 0.",
    )
)


def test_coordinates_follow_from_those_before():
    rules = CifGrammar("full", {"Ti": 2, "O": 4}, 136)
    assert offered(rules, RUTILE) == "05"  # 2a: (0, 0, 0); 2b: (0, 0, 1/2)
    oxygen = RUTILE + "0000 1.0\nO O1 4 0.3053 0."
    assert offered(rules, oxygen) == "36"  # 4f: (x, x, 0); 4g: (x, -x, 0)
    assert offered(rules, oxygen + "3") == "0"
    assert forced(rules.start(tokenizer.encode(oxygen + "6"))) == "947 "
    with pytest.raises(InputError, match=r"'4' is not allowed here; allowed: '0'"):
        rules.start(tokenizer.encode(oxygen + "34"))


def test_the_volume_may_differ_by_its_rounding_only():
    rules = CifGrammar("full", {"Ti": 2, "O": 4}, 136)
    line = RUTILE.index("_cell_volume ")
    assert offered(rules, RUTILE[:line] + "_cell_volume 62.6") == "3"
    assert offered(rules, RUTILE[:line] + "_cell_volume 62.63") == "123456"
    with pytest.raises(InputError, match="is not allowed here"):
        rules.start(tokenizer.encode(RUTILE[:line] + "_cell_volume 62.64"))


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


def test_lines_are_not_filled_beyond_what_they_hold():
    # In P6/mmm most of these atoms may end on (0, 0, z), which has room for some 200 orbits.
    counts = {"Ca": 192, "Al": 108, "Si": 192, "O": 384}
    ids, _, _ = WALKS["walk"](CifGrammar("full", counts, 191, NEVER), random.Random(0))
    assert not WALKS["fault"](tokenizer.decode(ids), counts, 191)


def test_elements_of_equal_electronegativity_share_a_block():
    assert blocks(["I", "Rb", "K", "Ar", "He"]) == [["K", "Rb"], ["I"], ["Ar", "He"]]
    (row,) = [row for row in golden() if row["id"] == "mp-1110633"]  # Rb 8, then K 4
    state, _ = follow(CifGrammar("full"), row["ids"])
    assert not state.allowed()


def test_atoms_too_close_are_taken_back():
    counts = {"Ti": 2, "O": 4}
    ids = tokenizer.encode(RUTILE + "0000 1.0\nO O1 4 0.0150 0.0150 0.000")
    state = CifGrammar("full", counts, 136).start(ids[:-6])
    for token in ids[-6:]:
        assert not state.advance(token)
    assert state.advance(tokenizer.encode("0")[0]) == 0  # the row began in the prompt, which is kept
    start = len(tokenizer.encode(RUTILE + "0000 1.0\nO O1 "))
    state = CifGrammar("full", counts, 136).start(ids[:start])
    for token in ids[start:]:
        assert not state.advance(token)
    assert state.advance(tokenizer.encode("0")[0]) == len(ids) + 1 - start
    assert tokenizer.decode(state.allowed()) == "4"


def test_what_cannot_be_is_said_before_anything_is_written():
    with pytest.raises(InputError, match=r"0\.5 formula units of O2"):
        CifGrammar("full", {"O": 1})
    with pytest.raises(InputError, match="no token for the space group P6:"):
        CifGrammar("full", {"O": 6}, 168)
    with pytest.raises(InputError, match="'O' is not allowed here; allowed: 'Ti'"):
        CifGrammar("full", {"Ti": 2, "O": 4}).start(tokenizer.encode("data_O4"))
    state = CifGrammar("full").start(tokenizer.encode("data_O1"))
    assert tokenizer.encode("\n")[0] not in state.allowed()


# --- numbers ---


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_numbers_stay_within_their_limit(lowest, width, rng):
    text = ""
    while (options := next_characters(text, lowest, lowest + width)) != "\n":
        text += rng.choice(options)
    assert lowest <= round(float(text) * UNITS) <= lowest + width
    assert text == f"{float(text):.4f}"
    wanted = f"{rng.randint(lowest, lowest + width) / UNITS:.4f}"
    for i, character in enumerate(wanted):
        assert character in next_characters(wanted[:i], lowest, lowest + width)


@given(st.integers(1, 230), st.integers(1, 300), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_cells_have_a_volume_within_the_limits(number, n_atoms, rng):
    group = space_groups.get(number)
    known: dict[str, float] = {}
    for name in group.free_cell:
        low, high = parameter_limit(group, n_atoms, known, name, PHYSICAL)
        assert low <= high
        known[name] = rng.choice([low, high, rng.randint(low, high)]) / UNITS
    cell = group.complete_cell(known)
    volume = cells.volume(cell)
    # The edges are rounded to four decimals where they stand at their limit.
    assert 0.999 * PHYSICAL.volume[0] <= volume / n_atoms <= 1.001 * PHYSICAL.volume[1]
    assert volume >= 0.999 * PHYSICAL.flatness * np.prod(cell[:3])
    low, high = volume_limit(group, cell)
    assert low <= round(volume * UNITS) <= high


# --- coordinates ---


def generic(group, position, rng):
    """Free parameters of a point that is clear of positions of higher symmetry."""
    while True:
        found = [rng.random() for _ in position.free]
        images = group.images(position.point(found))
        off = images - images[0]
        off = np.abs(off - np.rint(off)).max(axis=1)
        if not ((off > 1e-9) & (off < 2e-3)).any():
            return found


@pytest.mark.parametrize("number", [12, 62, 136, 152, 166, 181, 187, 194, 205, 220, 227])
def test_coordinates_against_the_geometry(number):
    """What is allowed lies on a position of the multiplicity; all points of the positions are allowed."""
    group, rng = space_groups.get(number), random.Random(number)
    for position in group.wyckoff[:-1]:
        here = sites(number, position.multiplicity)
        limits = dict.fromkeys([*here.fixed, -1], None)
        for _ in range(4):
            point = position.point(generic(group, position, rng))
            image = rng.choice(list(group.images(point) % 1.0))
            placement = Placement(here, limits, None, {})
            for x in image:
                value = round(x * GRID) % GRID
                mask, _ = placement.mask()
                assert mask[value], (position.label, image)
                placement.take(value)
            assert group.wyckoff[placement.site()[0]].multiplicity == position.multiplicity
            placement = Placement(here, limits, None, {})
            for _ in range(3):
                placement.take(rng.choice(np.flatnonzero(placement.mask()[0]).tolist()))
            printed = np.array(placement.rank) / GRID
            snapped = group.snap(printed, position.multiplicity, 2e-4)
            assert snapped is not None, (position.label, printed)
            assert len(group.orbit(snapped[1])) == position.multiplicity
