"""What a composition may be that the network chooses."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystallm.cif import tokenizer
from crystallm.crystallography import elements, space_groups, wyckoff_assignment
from crystallm.grammar import factory
from crystallm.grammar.composition import MAX_ATOMS, MAX_ELEMENTS, CompositionConstraint
from crystallm.orbits import language as orbits_language
from crystallm.orbits import vocabulary

SYMBOLS = elements.symbols()
SYSTEMS = st.sets(st.sampled_from(SYMBOLS), min_size=1, max_size=5).map(
    lambda found: tuple(elements.electronegativity_order(found))
)
BEGUN = {"orbits": [vocabulary.families().start], "cif": tokenizer.encode("data_")}


def walk(
    language: str, wanted: CompositionConstraint, rng: random.Random, *, few: bool
) -> dict[str, int] | None:
    """A composition at random; None where the rules let none go on.

    Args:
        language: `orbits` or `cif`.
        wanted: what is asked for.
        rng: of the choices.
        few: end as soon as that is allowed, else as late.
    """
    family, newline = vocabulary.families(), tokenizer.encode("\n")[0]
    rules = factory.make_grammar(language, wanted=wanted)
    state = rules.start(BEGUN[language])
    while True:
        able = list(state.allowed())
        if not able:
            return None
        if language == "orbits":
            ending = [token for token in able if family.group <= token < family.label]
        else:
            ending = [token for token in able if token == newline]
        going_on = [token for token in able if token not in ending]
        if ending and (few or not going_on):
            return dict(state.composition)
        state.advance(rng.choice(going_on))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["orbits", "cif"]),
    SYSTEMS,
    st.sampled_from([None, 1, 2, 14, 62, 139, 166, 194, 216, 221, 225, 227, 228, 230]),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_a_walk_has_all_elements_of_the_system_and_no_other(language, system, group, few, seed):
    found = walk(language, CompositionConstraint(system, group=group), random.Random(seed), few=few)
    if found is None:  # `cif` cannot tell less than one formula unit, half an O2
        assert language == "cif"
        assert system in elements.DOUBLED
        return
    assert tuple(found) == system
    assert sum(found.values()) <= MAX_ATOMS
    assert group is None or wyckoff_assignment.can_hold(group, found.values())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["orbits", "cif"]), SYSTEMS, st.booleans(), st.integers(0, 10_000))
def test_of_a_subset_some_may_be_left_out(language, system, few, seed):
    found = walk(language, CompositionConstraint(system, every=False), random.Random(seed), few=few)
    if found is not None:
        assert found
        assert set(found) <= set(system)
        assert list(found) == elements.electronegativity_order(found)


def test_every_element_of_a_system_may_stand_alone_in_its_subset():
    system = ("Li", "Fe", "O")
    wanted = CompositionConstraint(system, every=False)
    alone = {tuple(walk("orbits", wanted, random.Random(seed), few=True)) for seed in range(40)}
    assert alone == {("Li",), ("Fe",), ("O",)}


@pytest.mark.parametrize("number", range(1, 231))
def test_any_group_can_be_filled_with_as_many_elements_as_are_known_together(number):
    system = tuple(elements.electronegativity_order(["Cs", "Li", "Al", "Fe", "P", "Cl", "O", "F"]))
    assert len(system) == MAX_ELEMENTS
    wanted = CompositionConstraint(system, group=number)
    composition: dict[str, int] = {}
    for symbol in system:  # the largest count each time leaves the least behind
        able = wanted.counts(composition, symbol)
        composition[symbol] = able[-1] if symbol == system[0] else able[0]
    assert wyckoff_assignment.can_hold(number, composition.values())
    assert wanted.may_end(composition)


def test_counts_are_those_that_a_group_has_positions_for():
    rocksalt = CompositionConstraint(("Na", "Cl"), group=space_groups.get("Fm-3m").number)
    assert rocksalt.counts({"Na": 4}, "Cl")[:3] == (4, 8, 12)
    # 4a and 4b are full, so are they with 8c: what is left has free coordinates.
    assert rocksalt.counts({"Na": 16}, "Cl")[:2] == (24, 32)
    assert set(rocksalt.counts({"Na": 16}, "Cl")) == {
        n for n in range(1, MAX_ATOMS - 15) if wyckoff_assignment.can_hold(225, (16, n))
    }


def test_what_is_asked_is_heeded_by_full_rules_alone():
    state = factory.make_grammar("orbits", constraints="syntax", wanted=CompositionConstraint(("Li",))).start(
        BEGUN["orbits"]
    )
    assert len(state.allowed()) == len(SYMBOLS)
    state = factory.make_grammar("orbits", wanted=CompositionConstraint(("Li",))).start(BEGUN["orbits"])
    assert orbits_language.text(state.allowed()) == "Li"


def test_hundreds_and_units_of_a_count_are_told_together():
    state = factory.make_grammar("orbits", wanted=CompositionConstraint(("O",), group=230)).start(
        orbits_language.ids("<crystal> O +100")
    )
    able = {int(word) + 100 for word in orbits_language.text(state.allowed()).split()}
    assert able == {n for n in range(100, 200) if wyckoff_assignment.can_hold(230, (n,))}
    assert able
