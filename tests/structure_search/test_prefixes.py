"""Where a text has choices, what follows without one, and numbers that are changed."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.grammar import factory
from crystallm.language import get_language
from crystallm.orbits import language, vocabulary
from crystallm.structure_search.prefixes import PrefixExplorer

LANGUAGE = language.OrbitsLanguage()

RUTILE = "<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V-5 .7 c-9 .3 0.30 2' <end>"


@pytest.fixture
def rutile():
    grammar = factory.make_grammar("orbits", (("Ti", 2), ("O", 4)))
    return PrefixExplorer(LANGUAGE, grammar, 128)


def test_what_the_rules_force_belongs_to_the_choice_before_it(rutile):
    prompt = LANGUAGE.prompt((("Ti", 2), ("O", 4)))
    group = vocabulary.families().group + 135
    assert LANGUAGE.text(rutile.extend(prompt, (group,))).endswith("(P4_2/mnm) Ti")
    ids = LANGUAGE.ids(RUTILE)
    positions = rutile.choice_positions(ids, len(prompt))
    # Nine choices in 16 tokens: elements and the end follow.
    assert [LANGUAGE.text([ids[position]]) for position in positions] == [
        "(P4_2/mnm)", "2a", "4f", "V-5", ".7", "c-9", ".3", "0.30", "2'",
    ]  # fmt: skip
    assert rutile.extend(prompt, ids[len(prompt) :]) == tuple(ids)
    short = PrefixExplorer(LANGUAGE, rutile.grammar, 12)
    assert short.choice_positions(ids, len(prompt)) == [position for position in positions if position < 12]
    assert rutile.is_complete(ids)
    assert not rutile.is_complete(ids[:-1])


def test_a_continuation_is_followed_as_far_as_the_grammar_allows(rutile):
    prompt = LANGUAGE.prompt((("Ti", 2), ("O", 4)))
    continuation = LANGUAGE.ids("(P4_2/mnm) Ti 2a O 4f V-5 .7 c-9 .3 c0 .0")
    assert LANGUAGE.text(rutile.extend(prompt, continuation)).endswith("c-9 .3")
    with pytest.raises(InputError, match="is not allowed here"):
        rutile.extend(LANGUAGE.ids("<crystal> Ti 3"), ())


def test_the_place_of_the_space_group_is_known_in_both_languages(rutile):
    prompt = LANGUAGE.prompt((("Ti", 2), ("O", 4)))
    assert rutile.group_is_next(prompt)
    assert not rutile.group_is_next(LANGUAGE.ids(RUTILE)[:7])
    published = get_language("cif")
    cif = PrefixExplorer(published, None, 1024)
    assert cif.group_is_next(published.ids("data_Ti2O4\n_symmetry_space_group_name_H-M "))
    assert not cif.group_is_next(published.ids("data_Ti2O4\n"))


def test_without_rules_every_token_is_a_choice():
    free = PrefixExplorer(LANGUAGE, None, 16)
    assert free.choice_positions(range(8), 5) == [5, 6, 7]
    assert free.choice_positions(range(40), 12) == [12, 13, 14, 15]  # no prefix fills the context
    assert free.with_forced((1, 2)) == (1, 2)
    assert free.is_complete(range(2, 18))  # the context is full
