"""Backtracking: prompts are kept, and budgets bound it."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.grammar import base, factory
from crystallm.grammar.orbits.state import OrbitsGrammar
from crystallm.orbits import language, vocabulary


def test_a_prompt_that_breaks_the_rules():
    with pytest.raises(InputError, match="is not allowed here"):
        factory.make_grammar("orbits", {"Ti": 2, "O": 4}.items()).start(language.ids("<crystal> Ti 2 O 5"))


def test_a_prompt_is_never_taken_back():
    start = language.ids("<crystal> Na 2 Cl 2 (Pmm2) Na 2e Cl 2e V4 .1 b0 .0 c0 .0 0.25 0' 0.00 0'")
    rules = factory.make_grammar("orbits", {"Na": 2, "Cl": 2}.items(), 25)
    state = rules.start([*start, *language.ids("0.30 0'")])
    backs = [state.advance(token) for token in language.ids("0.00 0'")]
    assert backs == [0, 2]  # the last coordinate alone is none of the prompt's
    backs = [state.advance(state.allowed()[0]) for _ in range(2)]
    assert backs == [0, 0]
    assert list(state.allowed()) == [vocabulary.families().end]


def test_orbits_and_group_are_taken_back_where_cells_do_not_help():
    """In a cell that is always too small, other orbits are asked for, then another group, then no more."""
    counts = {"Rb": 4, "Cs": 4}
    start = [*language.prompt({"Cs": 4, "Rb": 4}.items(), None)]
    state = factory.make_grammar("orbits", {"Cs": 4, "Rb": 4}.items()).start(start)
    group = language.ids("(F-43m)")
    ids, backs = list(start), []
    for _ in range(400):
        options = state.allowed()
        token = group[0] if group[0] in options else options[0]  # the least volume
        ids.append(token)
        back = state.advance(token)
        backs.append(back)
        del ids[len(ids) - back :]
        if not state.allowed():
            break
    assert counts.keys() == {"Rb", "Cs"}
    assert ids[-1] == vocabulary.families().end
    # A cell has 2 tokens, orbits 4 more, a group 1 more. Each goes as often as its bound says, then no more.
    assert backs.count(7) == base.GROUP_RETRIES
    assert backs.count(6) == base.WYCKOFF_RETRIES + base.GROUP_RETRIES
    # Behind new orbits or a new group stand half as many cells, behind a group one more choice of orbits too.
    half = base.CELL_RETRIES // 2
    cells = base.CELL_RETRIES + base.WYCKOFF_RETRIES * half + base.GROUP_RETRIES * 2 * half
    assert backs.count(2) == cells


def test_work_on_a_text_is_bounded():
    """Where nothing helps, no more than so many tokens are taken back, and the text goes on to its end."""
    counts = {"Cs": 4, "Rb": 4}
    start = language.prompt(counts.items(), 216)
    spent = []
    for work in (0, 13, 40, None):
        state = OrbitsGrammar("full", counts, 216, max_backtracked=work).start(start)
        backs = []
        while options := state.allowed():
            backs.append(state.advance(options[0]))  # the least volume
        spent.append(sum(backs))
        assert work is None or spent[-1] <= work
    assert spent[0] == 0 < spent[1] < spent[2] < spent[3] <= base.MAX_BACKTRACKED
