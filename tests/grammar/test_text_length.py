"""The fewest tokens of a cell, and what fits the context."""

from __future__ import annotations

import random

import pytest

from crystallm.errors import InputError
from crystallm.grammar import factory, text_length
from crystallm.orbits import language
from walks import walk


def test_cells_that_outgrow_the_context_are_refused_before_anything_is_written():
    counts = {"Na": 50, "Cl": 51}
    with pytest.raises(InputError, match=r"Na50Cl51 in P1 takes 8\d\d tokens.*holds 800: request"):
        factory.make_grammar("orbits", counts.items(), 1, context=800)
    assert factory.make_grammar("orbits", counts.items(), 1, context=900)
    assert 1 not in text_length.groups_within((50, 51), 800)
    assert 1 in text_length.groups_within((50, 51), None)


@pytest.mark.parametrize("group", [2, 10, 47, 123, 221])
def test_walks_fit_the_context_they_are_given(group):
    """Uniform walks prefer no short text; the rules turn them to special positions as the room shrinks."""
    rng, counts = random.Random(group), {"Mg": 24, "O": 24}
    least = text_length.sequence_tokens(group, (24, 24))
    for context in (int(least), int(least) + 7):
        rules = factory.make_grammar("orbits", counts.items(), group, context=context)
        prompt = language.prompt(counts.items(), group)
        ids = walk(rules.start(prompt), prompt, rng)
        assert language.from_ids(ids).composition == tuple(counts.items())
        assert len(ids) <= context
