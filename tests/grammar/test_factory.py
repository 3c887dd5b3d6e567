"""The grammar for a request, and requests that have none."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.grammar import factory
from crystallm.grammar.cif.state import CifGrammar
from crystallm.grammar.orbits.state import OrbitsGrammar


def test_what_cannot_be_is_said_before_anything_is_written():
    with pytest.raises(InputError, match=r"Ti3O6 cannot fill Fm-3m \(#225\)"):
        factory.make_grammar("orbits", {"Ti": 3, "O": 6}.items(), 225)
    with pytest.raises(InputError, match="is none of"):
        factory.make_grammar("orbits", constraints="some")


def test_none_is_no_rule():
    assert factory.make_grammar("orbits", {"Ti": 2}.items(), None, "none") is None


@pytest.mark.parametrize(("language", "kind"), [("orbits", OrbitsGrammar), ("cif", CifGrammar)])
def test_the_grammar_is_that_of_the_language(language, kind):
    grammar = factory.make_grammar(language, (("Ti", 2), ("O", 4)), 136)
    assert isinstance(grammar, kind)
    assert (grammar.strength, grammar.counts, grammar.group) == ("full", {"Ti": 2, "O": 4}, 136)


def test_a_cell_that_no_context_holds_is_rejected_with_its_tokens():
    counts = {"Si": 200, "O": 400}
    with pytest.raises(InputError, match="takes [0-9]+ tokens or more, .* holds 20: .* or another model"):
        factory.make_grammar("orbits", counts.items(), context=20)
