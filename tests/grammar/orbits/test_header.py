"""Composition and space group of orbits sequences."""

from __future__ import annotations

import random

from crystallm.grammar import factory
from crystallm.orbits import description, language, vocabulary


def walk(state, ids, rng):
    """Choose uniformly among what is allowed until nothing is; `state` stands behind `ids`."""
    ids = list(ids)
    for _ in range(5000):
        options = list(state.allowed())
        if not options:
            return ids
        ids.append(rng.choice(options))
        back = state.advance(ids[-1])
        del ids[len(ids) - back :]
    raise AssertionError("a walk without end")


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
