"""Composition and space group of orbits sequences."""

from __future__ import annotations

import random

from crystallm.grammar import factory
from crystallm.orbits import description, language, vocabulary
from walks import walk


def test_walks_with_nothing_asked():
    rng = random.Random(1)
    for _ in range(30):
        state = factory.make_grammar("orbits").start([])
        ids = []
        for _ in range(12):  # a composition of a few elements, small counts
            options = [
                i
                for i in state.allowed()
                if not vocabulary.families().hundreds <= i < vocabulary.families().number
            ]
            options = [
                i for i in options if not vocabulary.families().number + 9 <= i < vocabulary.families().group
            ] or options
            ids.append(rng.choice(options))
            state.advance(ids[-1])
            if ids[-1] >= vocabulary.families().group:
                break
        else:
            groups = [i for i in state.allowed() if i >= vocabulary.families().group]
            if not groups:
                continue
            ids.append(rng.choice(groups))
            state.advance(ids[-1])
        state.settle()  # what was chosen here stays
        read = language.from_ids([*ids, *walk(state, [], rng)])
        assert sum(dict(read.composition).values()) == len(description.to_structure(read))


def names(state):
    return [vocabulary.vocabulary()[i] for i in state.allowed()]


def test_a_requested_composition_and_group_are_forced():
    state = factory.make_grammar("orbits", {"Si": 128, "O": 256}.items(), 1).start([])
    for token in language.ids("<crystal> Si +100 28 O +200 56 (P1)"):
        assert list(state.allowed()) == [token]
        state.advance(token)
    assert names(state) == ["Si"]


def test_elements_rise_in_electronegativity_and_occur_once():
    state = factory.make_grammar("orbits").start(language.ids("<crystal> O 2"))
    assert "F" in names(state)
    assert not {"O", "Ti"} & set(names(state))
    loose = factory.make_grammar("orbits", constraints="syntax").start(language.ids("<crystal> O 2"))
    assert "Ti" in names(loose)
    assert "O" not in names(loose)


def test_groups_are_those_that_hold_the_composition():
    state = factory.make_grammar("orbits").start(language.ids("<crystal> O 1"))
    groups = {name for name in names(state) if name.startswith("(")}
    assert {"(P1)", "(Pm-3m)"} <= groups
    assert "(Fm-3m)" not in groups
