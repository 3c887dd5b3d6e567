"""Coordinates of orbits sequences: atoms keep their distance, and orbits their points."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

from crystallm.geometry import contacts
from crystallm.grammar import factory
from crystallm.grammar.orbits.state import OrbitsGrammar, OrbitsGrammarState
from crystallm.orbits import description, language, vocabulary
from walks import walk


def closest(structure):
    """Shortest distance of two atoms as a share of the expected length of their bond."""
    found = []
    for i, j, _, distance in zip(*structure.get_neighbor_list(4.0), strict=True):
        found.append(distance / contacts.bond_length(*(structure[k].specie.symbol for k in (i, j))))
    return min(found, default=9.0)


def test_atoms_too_close_are_written_anew():
    """A walk of mere chance would put atoms on top of each other; here hardly any crystal has such a pair."""
    rng = random.Random(3)
    start = language.prompt({"Ti": 4, "O": 8}.items(), 14)
    shares = []
    for _ in range(12):
        start_state = factory.make_grammar("orbits", {"Ti": 4, "O": 8}.items(), 14).start(start)
        shares.append(closest(description.to_structure(language.from_ids(walk(start_state, start, rng)))))
    assert sum(share >= contacts.SHARE for share in shares) >= 9


def state_of_sodium_chloride(ids, n_prompt=0):
    """The rules after tokens behind a prompt of Na2 Cl2 in a cell of 9 by 4 by 6 Å; the first are its own."""
    start = language.prompt({"Na": 2, "Cl": 2}.items(), 25)
    ids = language.ids(f"Na 2e Cl 2e V15 .0 b-17 .8 c-9 .9 {ids}")
    grammar = factory.make_grammar("orbits", {"Na": 2, "Cl": 2}.items(), 25)
    return behind_tokens(grammar.start([*start, *ids[:n_prompt]]), ids[n_prompt:])


def test_a_coordinate_is_limited_to_values_with_room():
    state = state_of_sodium_chloride("0.21 0' 0.00 0' 0.21 0'")
    led = state.allowed()
    family = vocabulary.families()
    assert 0 < len(led) < 100
    assert family.coarse not in led
    assert family.coarse + 50 in led
    state.advance(led[0])
    for token in state.allowed():
        assert copy.deepcopy(state).advance(token) == 0


def test_a_coordinate_that_leaves_no_room_for_the_next_is_taken_back():
    """In a cell that is too short for two atoms in a row, there is room along z at another x alone."""
    counts = {"Na": 2, "Cl": 2}
    start = language.prompt(counts.items(), 25)
    state = OrbitsGrammar("full", counts, 25, retries=(1, 0, 0, 0)).start(start)
    for token in language.ids("Na 2e Cl 2e V10 .0 b0 .0 c-10 .0 0.21 0' 0.00 0' 0.21"):
        assert state.advance(token) == 0
    assert state.advance(language.ids("0'")[0]) == 2
    for token in language.ids("0.35 1'"):
        assert state.advance(token) == 0
    while allowed := state.allowed():
        assert state.advance(allowed[0]) == 0


def test_a_prompt_is_kept_whatever_its_distances():
    """A coordinate behind the prompt is taken back where it is too close, those of the prompt are not."""
    close = "0.21 0' 0.00 0' 0.21 0'"
    n_prompt = 4 + 6 + 6
    state = state_of_sodium_chloride(close, n_prompt)
    for token in language.ids("0.00 5'")[:1]:
        assert state.advance(token) == 0
    assert state.advance(language.ids("5'")[0]) == 2
    assert state.advance(language.ids("0.50")[0]) == 0
    whole = state_of_sodium_chloride(f"{close} 0.00 5'", n_prompt + 2)
    assert len(whole.allowed()) == 1


def behind_tokens(state, ids):
    """The state itself, led on through tokens."""
    for token in ids:
        state.advance(token)
    return state


def test_order_yields_where_no_place_is_left_behind():
    """Atoms of P1 stand in order; behind the last place there is, the next one may stand before."""
    counts = {"He": 12}
    start = language.prompt(counts.items(), 1)
    state = OrbitsGrammarState(OrbitsGrammar("full", counts, 1, retries=(0, 0, 0, 0)))
    for token in [*start, *language.ids("He 1a " * 12 + "V5 .0 b0 .0 c0 .0 90° .0 90° .0 90° .0")]:
        state.advance(token)
    for token in language.ids("0.99 9' 0.99 9' 0.99 9' 0.99 9' 0.99 9' 0.50"):
        assert state.advance(token) == 0
    assert len(state.allowed()) == 10


@pytest.mark.parametrize(("element", "number", "count"), [("C", 8, 360), ("C", 1, 120), ("Na", 2, 200)])
def test_no_two_atoms_are_on_one_point_where_a_network_wants_nothing_else(element, number, count):
    """The last token that may come, always: all coordinates go to the end of the edge, and pile up there."""
    rules = OrbitsGrammar("full", {element: count}, number, retries=(0, 0, 0, 0), bond_retries=0)
    ids = language.prompt([(element, count)])
    state = rules.start(ids)
    while allowed := list(state.allowed()):
        ids.append(max(allowed))
        assert state.advance(ids[-1]) == 0
    structure = description.to_structure(language.from_ids(ids))
    assert len(structure) == count
    off = structure.frac_coords[:, None] - structure.frac_coords[None]
    apart = np.abs(off - np.rint(off)).max(axis=2) + np.eye(count)
    assert apart.min() > 0.9 / description.STEPS
