"""The rules of the orbits language: exact feasibility, and walks that always end in the crystal asked for."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest

from crystallm.crystallography import space_groups, wyckoff_assignment
from crystallm.errors import InputError
from crystallm.geometry import contacts
from crystallm.grammar import base, factory, text_length
from crystallm.grammar.orbits.state import OrbitsGrammar, OrbitsGrammarState
from crystallm.orbits import description, language, vocabulary
from real_crystals import structures

COMPOSITIONS = [
    {"Ti": 2, "O": 4},
    {"Na": 4, "Cl": 4},
    {"Ca": 1, "Ti": 1, "O": 3},
    {"Mg": 8, "Al": 16, "O": 32},
    {"Si": 8},
    {"Ca": 10, "P": 6, "H": 2, "O": 26},
    {"Zr": 3, "Mn": 18, "Sn": 18},
]


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


def can_fill(number, counts):
    """Feasibility another way: the set of all that can be placed, position by position."""
    reached = {tuple(0 for _ in counts)}
    for position in space_groups.get(number).wyckoff:
        frontier = reached
        while frontier:
            grown = {
                (*placed[:i], placed[i] + position.multiplicity, *placed[i + 1 :])
                for placed in frontier
                for i in range(len(counts))
                if placed[i] + position.multiplicity <= counts[i]
            }
            frontier = grown - reached if position.free else set()
            reached = reached | grown
    return tuple(counts) in reached


@pytest.mark.parametrize("number", [1, 2, 14, 25, 62, 115, 123, 136, 166, 187, 194, 215, 221, 225, 227, 229])
def test_feasibility_against_brute_force(number):
    rng = random.Random(number)
    for _ in range(40):
        counts = [rng.randint(1, 9) for _ in range(rng.randint(1, 3))]
        assert wyckoff_assignment.can_hold(number, counts) == can_fill(number, counts), counts


@pytest.mark.parametrize("counts", COMPOSITIONS, ids=str)
def test_walks_end_in_the_composition_asked_for(counts):
    rng = random.Random(0)
    start = language.prompt(counts.items())
    for number in rng.sample(wyckoff_assignment.groups_for(tuple(sorted(counts.values()))), 25):
        rules = factory.make_grammar("orbits", counts.items(), number)
        ids = walk(rules.start(start), start, rng)
        read = language.from_ids(ids)
        assert read.space_group == number
        assert dict(read.composition) == counts
        found = dict.fromkeys(counts, 0)
        for orbit in read.orbits:
            found[orbit.element] += space_groups.get(number).by_label[orbit.label].multiplicity
        assert found == counts
        assert len(description.to_structure(read)) == sum(counts.values())


@pytest.mark.parametrize("number", range(1, 231))
def test_every_group_can_be_walked(number):
    rng = random.Random(number)
    general = space_groups.get(number).wyckoff[-1].multiplicity
    counts = {"O": general, "Ti": 2 * general}
    rules = factory.make_grammar("orbits", counts.items(), number)
    start = language.prompt(counts.items(), number)
    read = language.from_ids(walk(rules.start(start), start, rng))
    assert len(description.to_structure(read)) == 3 * general


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


def test_syntax_alone_gives_readable_texts():
    rng = random.Random(2)
    start = language.prompt({"Ti": 2, "O": 4}.items(), 136)
    for _ in range(20):
        state = factory.make_grammar("orbits", None, None, "syntax").start(start)
        ids = list(start)
        for token in language.ids("Ti 2a O 4f"):
            state.advance(token)
            ids.append(token)
        rest = [i for i in state.allowed() if i >= vocabulary.families().volume]
        ids.append(rng.choice(rest))
        state.advance(ids[-1])
        language.from_ids([*ids, *walk(state, [], rng)])


def test_what_cannot_be_is_said_before_anything_is_written():
    with pytest.raises(InputError, match=r"Ti3O6 cannot fill Fm-3m \(#225\)"):
        factory.make_grammar("orbits", {"Ti": 3, "O": 6}.items(), 225)
    with pytest.raises(InputError, match="is none of"):
        factory.make_grammar("orbits", constraints="some")


def test_a_prompt_that_breaks_the_rules():
    with pytest.raises(InputError, match="is not allowed here"):
        factory.make_grammar("orbits", {"Ti": 2, "O": 4}.items()).start(language.ids("<crystal> Ti 2 O 5"))


def test_none_is_no_rule():
    assert factory.make_grammar("orbits", {"Ti": 2}.items(), None, "none") is None


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


def test_a_taken_back_orbit_leaves_the_state_where_it_was():
    start = language.prompt({"Na": 2, "Cl": 2}.items(), 25)
    state = factory.make_grammar("orbits", {"Na": 2, "Cl": 2}.items(), 25).start(start)
    # 9 by 4 by 6 Å
    for token in language.ids("Na 2e Cl 2e V15 .0 b-17 .8 c-9 .9 0.21 0' 0.00 0' 0.30 0' 0.00"):
        assert state.advance(token) == 0
    assert state.advance(language.ids("0'")[0]) == 4
    for token in language.ids("0.32 0' 0.43 0' <end>"):
        assert state.advance(token) == 0
    assert not state.allowed()


def test_a_crystal_with_more_symmetry_than_written_is_written_anew():
    """Rock salt told in a tetragonal group would be cubic: its cell is taken back."""
    start = language.prompt({"Na": 2, "Cl": 2}.items(), 123)
    state = factory.make_grammar("orbits", {"Na": 2, "Cl": 2}.items(), 123).start(start)
    text = "Na 1a Na 1d Cl 1b Cl 1c V-2 .4 c6 .9 <end>"  # c = a sqrt 2, and no atom may move
    backs = []
    for token in language.ids(text):
        backs.append(state.advance(token))
        if backs[-1]:
            break
    assert backs[-1] == 4
    assert set(language.ids("V-2")) & set(state.allowed())


def test_orbits_with_more_symmetry_than_written_are_taken_back_soon():
    """Half of the points of a cubic close packing, told in Pm-3m, are a smaller cell in any cell."""
    start = language.prompt({"Cu": 4}.items(), 221)
    state = factory.make_grammar("orbits", {"Cu": 4}.items(), 221).start(start)
    text = language.ids("Cu 1a Cu 3c")  # Fm-3m
    ids = [*text, *language.ids("V-2 .4")]
    backs = [state.advance(token) for token in ids]
    for _ in range(base.STRAY_CELL_RETRIES - 1):
        backs += [state.advance(token) for token in ids[len(text) :]]
    assert [back for back in backs if back] == [2] * base.STRAY_CELL_RETRIES
    assert [state.advance(token) for token in ids[len(text) :]] == [0, 6]
    assert set(language.ids("Cu")) == set(state.allowed())


def test_an_orbit_that_met_others_is_led_to_values_with_room():
    start = language.prompt({"Na": 2, "Cl": 2}.items(), 25)
    state = factory.make_grammar("orbits", {"Na": 2, "Cl": 2}.items(), 25).start(start)
    # 9 by 4 by 6 Å
    for token in language.ids("Na 2e Cl 2e V15 .0 b-17 .8 c-9 .9 0.21 0' 0.00 0'"):
        state.advance(token)
    close = language.ids("0.21 0' 0.00 5'")
    for _ in range(base.UNGUIDED_RETRIES):
        assert set(close[2:3]) < set(behind_tokens(state, close[:2]).allowed())
        assert [state.advance(token) for token in close[2:]] == [0, 4]
    led = behind_tokens(state, close[:2]).allowed()
    family = vocabulary.families()
    assert 0 < len(led) < 100
    assert family.coarse not in led
    assert family.coarse + 50 in led
    state.advance(led[0])
    for token in state.allowed():
        assert copy.deepcopy(state).advance(token) == 0


def behind_tokens(state, ids):
    """The state itself, led on through tokens."""
    for token in ids:
        state.advance(token)
    return state


def test_a_prompt_is_never_taken_back():
    start = language.ids("<crystal> Na 2 Cl 2 (Pmm2) Na 2e Cl 2e V4 .1 b0 .0 c0 .0 0.25 0' 0.00 0'")
    rules = factory.make_grammar("orbits", {"Na": 2, "Cl": 2}.items(), 25)
    state = rules.start([*start, *language.ids("0.30 0'")])
    backs = [state.advance(token) for token in language.ids("0.00 0'")]
    assert backs == [0, 0]
    assert list(state.allowed()) == [vocabulary.families().end]


def test_published_crystals_are_walks():
    """What real crystals say is allowed, choice by choice, and nothing of it is taken back."""
    exceptions = []
    least, most = contacts.VOLUMES
    for structure in structures():
        if not least < structure.volume / len(structure) < most:
            assert structure.formula == "Cu1"  # 603 Å^3 an atom
            continue
        ids = language.OrbitsLanguage().encode(structure)
        read = language.from_ids(ids)
        rules = OrbitsGrammar("full", dict(read.composition), read.space_group, bond_retries=0)
        state = rules.start(ids[:1])
        if any(state.advance(token) for token in ids[1:]):
            exceptions.append(language.text(ids))
    assert exceptions == []


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
    least, most = contacts.VOLUMES
    assert all(least <= volume <= most for volume in found.values())
    assert found[min(found)] * math.exp(-1 / 200) < least
    assert found[max(found)] * math.exp(1 / 200) > most


def behind(counts, ids):
    """The state of full rules in P1 behind ids."""
    return OrbitsGrammar("full", counts, 1).start(ids)


@pytest.mark.parametrize("angles", ["10° .0 10° .0", "10° .9 170° .9", "170° .9 170° .9", "95° .5 119° .4"])
def test_the_last_angle_gives_the_cell_a_volume(angles):
    counts = {"He": 1}
    opening = [*language.prompt(counts.items(), 1), *language.ids(f"He 1a V0 .0 b0 .0 c0 .0 {angles}")]
    degrees = behind(counts, opening).allowed()
    group = space_groups.get(1)
    for token in (degrees[0], degrees[-1]):
        for rest in (0, 9):
            state = behind(counts, [*opening, token, vocabulary.families().rest + rest])
            assert min(description.cell_parameters(counts.items(), group, state.cell)) > 0


def test_odd_bonds_are_written_anew_a_bounded_number_of_times():
    """Perovskite with a cell edge of 5.8 Å has bonds of 2.9 Å between Ti and O: who insists may write it."""
    counts = {"Sr": 1, "Ti": 1, "O": 3}
    start = language.prompt(counts.items(), 221)
    state = factory.make_grammar("orbits", counts.items(), 221).start(start)
    for token in language.ids("Sr 1b Ti 1a O 3d"):
        state.advance(token)
    backs = []
    for _ in range(base.ORBIT_BOND_RETRIES):
        backs += [state.advance(token) for token in language.ids("V19 .8")]
    assert backs == [0, 2] * base.ORBIT_BOND_RETRIES
    assert [state.advance(token) for token in language.ids("V19 .8")] == [0, 0]
    assert list(state.allowed()) == [vocabulary.families().end]


def test_few_published_crystals_have_odd_bonds():
    taken_back = 0
    for structure in structures()[::5]:
        ids = language.OrbitsLanguage().encode(structure)
        read = language.from_ids(ids)
        state = factory.make_grammar("orbits", read.composition, read.space_group).start(ids[:1])
        taken_back += any(state.advance(token) for token in ids[1:])
    assert taken_back <= 6


def test_order_yields_where_no_place_is_left_behind():
    """Atoms of P1 stand in order; behind the last place there is, the next one may stand before."""
    counts = {"He": 12}
    start = language.prompt(counts.items(), 1)
    state = OrbitsGrammarState(OrbitsGrammar("full", counts, 1, retries=(0, 0, 0, 0)))
    for token in [*start, *language.ids("He 1a " * 12 + "V50 .0 b0 .0 c0 .0 90° .0 90° .0 90° .0")]:
        state.advance(token)
    for last in range(10):
        for token in language.ids(f"0.99 9' 0.99 9' 0.99 {last}'"):
            state.advance(token)
    for token in language.ids("0.99 9' 0.99 9'"):
        state.advance(token)
    assert language.ids("0.50")[0] in state.allowed()
    state.advance(language.ids("0.98")[0])
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


def test_cells_that_outgrow_the_context_are_refused_before_anything_is_written():
    counts = {"Na": 50, "Cl": 51}
    with pytest.raises(InputError, match=r"Na50Cl51 in P1 takes 8\d\d tokens.*holds 800: ask"):
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


def test_orbits_and_group_are_taken_back_where_cells_do_not_help():
    """In a cell that is always too small, other orbits are asked for, then another group, then no more."""
    counts = {"Xe": 4, "Cs": 4}
    start = [*language.prompt({"Cs": 4, "Xe": 4}.items(), None)]
    state = factory.make_grammar("orbits", {"Cs": 4, "Xe": 4}.items()).start(start)
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
    assert counts.keys() == {"Xe", "Cs"}
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
    counts = {"Cs": 4, "Xe": 4}
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


@pytest.mark.parametrize(("ends", "back"), [((1, 0), 4), ((0, 0), 8)])
def test_orbits_with_odd_bonds_are_taken_back_and_those_before_stay(monkeypatch, ends, back):
    def fault(atoms, number, *, bonds_too):
        atoms.implausible = [(1, 1), ends]
        return faults.pop()

    monkeypatch.setattr(contacts.PlacedAtoms, "fault", fault)
    faults = ["", "bonds"]
    counts = {"Na": 2, "Cl": 2}
    state = factory.make_grammar("orbits", counts.items(), 25).start(language.prompt(counts.items(), 25))
    for token in language.ids("Na 2e Cl 2e V15 .0 b-17 .8 c-9 .9"):  # 9 by 4 by 6 Å
        state.advance(token)
    coordinates = language.ids("0.21 0' 0.00 0' 0.32 0' 0.43 0'")
    assert [state.advance(token) for token in coordinates] == [0] * 7 + [back]
    assert [state.advance(token) for token in coordinates[8 - back :]] == [0] * back
    assert list(state.allowed()) == [vocabulary.families().end]
    assert state._atoms.sizes == [2, 2]
