"""Ids of allowed tokens: within bounds, and cached."""

from __future__ import annotations

import math

import pytest

from crystallm.geometry import contacts, distances
from crystallm.grammar import factory
from crystallm.grammar.orbits.state import OrbitsGrammar
from crystallm.orbits import description, language, vocabulary


@pytest.mark.parametrize("counts", [{"Cs": 1}, {"B": 12, "C": 3}], ids=str)
def test_volumes_are_those_that_crystals_have(counts):
    """Tens that hold no such volume are left out, and the rests beyond in the first and the last tens."""
    start = language.prompt(counts.items(), 1)
    atoms = language.ids("".join(f"{symbol} 1a " * n for symbol, n in counts.items()))
    family, found = vocabulary.families(), {}
    tens = behind(counts, [*start, *atoms]).allowed()
    for first in (tens[0], tens[-1]):
        for rest in behind(counts, [*start, *atoms, first]).allowed():
            steps = 10 * (first - family.volume - 90) + rest - family.rest
            found[steps] = (
                description.volume_of_atoms(counts.items()) * math.exp(steps / 200) / sum(counts.values())
            )
    symbols = [symbol for symbol, n in counts.items() for _ in range(n)]
    known = [volume / len(symbols) for volume in distances.volume_range(symbols)]
    least, most = max(known[0], contacts.VOLUMES[0]), min(known[1], contacts.VOLUMES[1])
    assert all(least <= volume <= most for volume in found.values())
    assert found[min(found)] * math.exp(-1 / 200) < least
    assert found[max(found)] * math.exp(1 / 200) > most


def behind(counts, ids):
    """The state of full rules in P1 behind ids."""
    return OrbitsGrammar("full", counts, 1).start(ids)


def test_options_that_are_the_same_are_one_object():
    """So whoever reads them may keep what comes of them; a choice of one is a tuple of one."""
    counts = {"Ti": 2, "O": 4}
    start = language.prompt(counts.items())
    one, other = (factory.make_grammar("orbits", counts.items()).start(start) for _ in range(2))
    for token in language.ids("(P4_2/mnm) Ti 2a O 4f V0 .0 c-9 .2 0.30 5' <end>"):
        assert one.allowed() is other.allowed()
        if len(one.allowed()) == 1:
            assert one.allowed() == (token,)
        one.advance(token)
        other.advance(token)
