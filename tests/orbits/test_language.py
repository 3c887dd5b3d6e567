"""Descriptions become ids and come back; any ids are read or rejected with the token."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from crystallm import language
from crystallm.crystallography import elements, space_groups
from crystallm.errors import InputError, TextError
from crystallm.orbits import description as orbits_description
from crystallm.orbits import language as orbits_language
from crystallm.orbits import vocabulary
from crystallm.orbits.description import Description, Orbit
from real_crystals import structures

unhurried = settings(deadline=None)

patient = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

RUTILE = "<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V0 .0 c-9 .2 0.30 5' <end>"


@cache
def real_ids() -> list[list[int]]:
    return [orbits_language.to_ids(orbits_description.describe(structure)) for structure in structures()]


def read(text: str) -> Description:
    return orbits_language.from_ids(orbits_language.ids(text))


def test_ids_and_text_are_each_others_inverse() -> None:
    for ids in real_ids():
        assert orbits_language.ids(orbits_language.text(ids)) == ids
    everything = list(range(len(vocabulary.vocabulary())))
    assert orbits_language.ids(orbits_language.text(everything)) == everything
    assert orbits_language.ids(RUTILE.replace(" ", "\n ")) == orbits_language.ids(RUTILE)


@unhurried
@given(st.text(max_size=60))
def test_any_string_has_ids_or_is_refused(text: str) -> None:
    words = text.split()
    wrong = [place for place, word in enumerate(words, 1) if word not in vocabulary.vocabulary()]
    if not wrong:
        assert orbits_language.text(orbits_language.ids(text)).split() == words
        return
    with pytest.raises(TextError, match=f"token {wrong[0]}: .* is not a token") as caught:
        orbits_language.ids(text)
    assert caught.value.line == wrong[0]


def test_rutile_is_written_so(textbook_structures: dict[str, Structure]) -> None:
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.3048, 0.3048, 0]]
    )
    assert orbits_language.text(orbits_language.to_ids(orbits_description.describe(rutile))) == RUTILE
    encode = orbits_language.OrbitsLanguage().encode
    written = {name: orbits_language.text(encode(s)) for name, s in textbook_structures.items()}
    assert written["rocksalt"] == "<crystal> Na 4 Cl 4 (Fm-3m) Na 4a Cl 4b V-3 .4 <end>"
    assert written["perovskite"] == "<crystal> Sr 1 Ti 1 O 3 (Pm-3m) Sr 1a Ti 1b O 3c V-4 .1 <end>"
    assert written["diamond"] == "<crystal> C 8 (Fd-3m) C 8a V-7 .4 <end>"
    assert written["wurtzite"] == ("<crystal> Zn 2 S 2 (P6_3mc) Zn 2b S 2b V0 .8 c9 .8 0.00 0' 0.37 5' <end>")


def test_large_counts_take_a_token_for_the_hundreds() -> None:
    assert (
        orbits_language.text(orbits_language.prompt([("O", 1204), ("Si", 600)]))
        == "<crystal> Si +600 0 O +1200 4"
    )
    assert read("<crystal> Si +600 0 O +1200 4 (P1) O 1a V0 .0 b0 .0 c0 .0" + " 90° .0" * 3
                + " 0.00 0'" * 3 + " <end>").composition == (("Si", 600), ("O", 1204))  # fmt: skip


def test_prompts_are_beginnings_of_the_texts() -> None:
    for ids in real_ids()[::10]:
        crystal = orbits_language.from_ids(ids)
        backwards = crystal.composition[::-1]
        for known in ((), (backwards,), (backwards, crystal.space_group)):
            prompt = orbits_language.prompt(*known)
            assert ids[: len(prompt)] == prompt


@pytest.mark.parametrize(
    ("composition", "group", "message"),
    [
        (None, 225, "space group 225 without a formula"),
        ([], 225, "without an element"),
        ([("Po", 1)], None, "Po .* no token"),
        ([("Qq", 1)], None, "'Qq' is not an element"),
        ([("Na", 0)], None, "0 atoms of Na"),
        ([("Na", 4000)], None, "4000 atoms of Na .* 1 to 3999"),
        ([("Na", 1)], 231, "no space group 231"),
    ],
)
def test_prompts_that_cannot_be_said_are_refused(composition, group, message) -> None:
    with pytest.raises(InputError, match=message):
        orbits_language.prompt(composition, group)


def test_numbers_beyond_the_tokens_are_refused(monkeypatch) -> None:
    encode = orbits_language.OrbitsLanguage().encode
    atom = elements.get("Na").volume
    widest = Lattice.cubic((atom * np.exp(909 / 200)) ** (1 / 3))
    assert orbits_language.text(encode(Structure(widest, ["Na"], [[0, 0, 0]]))).endswith("V90 .9 <end>")
    with pytest.raises(
        InputError, match=r"cell volume of 363.2 times that of its atoms: .* 0.0111 to 94.2 t"
    ):
        encode(Structure(Lattice.cubic(20), ["Na"], [[0, 0, 0]]))
    with pytest.raises(InputError, match=r"cell with c/a of 66.69: this language has 0.0235 to 44.5"):
        encode(Structure(Lattice.tetragonal(3, 200), ["Na"], [[0, 0, 0]]))
    orbit = Orbit("Na", "1a", (0, 0, 0))
    flat = Description((("Na", 1),), 1, (orbit,), (0, 0, 0, 90, 900, 900))
    with pytest.raises(InputError, match="cell angle of 9.0°: this language has 10 to 170°"):
        orbits_language.to_ids(flat)
    low = Description((("Na", 1),), 1, (orbit,), (0, -751, 0, 900, 900, 900))
    with pytest.raises(InputError, match="cell with b/a of 0.0234: "):
        orbits_language.to_ids(low)
    monkeypatch.setattr(orbits_description, "MAX_COUNT", 3)
    with pytest.raises(InputError, match="4 atoms of O in a cell: this language has 1 to 3"):
        orbits_description.describe(orbits_description.to_structure(read(RUTILE)))


def test_the_standard_text_keeps_the_space_group_that_was_written() -> None:
    from crystallm.cif import parser

    higher = RUTILE.replace("(P4_2/mnm) Ti 2a O 4f", "(P4_2nm) Ti 2a O 4c").replace(
        "0.30 5'", "0.00 0' 0.30 5' 0.00 0'"
    )
    parsed = parser.parse(orbits_language.OrbitsLanguage().standard_text(orbits_language.ids(higher)))
    assert (parsed.space_group, parsed.printed_number) == ("P4_2nm", 102)
    assert orbits_description.describe(orbits_description.to_structure(read(higher))).space_group == 136


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("<crystal> ", "", 1, "token 1: <crystal> expected, not 'Ti'"),
        ("Ti 2 O 4 ", "", 2, r"token 2: an element expected, not '\(P4_2/mnm\)'"),
        ("Ti 2 O", "Ti O", 3, "token 3: a count expected, not 'O'"),
        ("Ti 2 O 4", "Ti 2 Ti 4", 4, "token 4: Ti occurs twice in the composition"),
        ("Ti 2 O 4", "Ti 0 O 4", 3, "token 3: 0 atoms of Ti"),
        ("(P4_2/mnm) Ti", "Sr", 7, "token 7: a count expected, not '2a'"),
        ("(P4_2/mnm)", "90°", 6, "token 6: a space group expected, not '90°'"),
        ("Ti 2a O 4f V0", "V0", 7, "token 7: an element expected, not 'V0'"),
        ("Ti 2a O", "Ti O", 8, "token 8: a Wyckoff position expected, not 'O'"),
        ("Ti 2a O 4f V0", "Ti 2a O 6g V0", 10, "token 10: P4_2/mnm has no Wyckoff position 6g"),
        (
            "Ti 2a O 4f V0",
            "Ti 2a O 2a V0",
            10,
            "token 10: position 2a of P4_2/mnm has no room for two orbits",
        ),
        ("V0", "c0", 11, "token 11: cell volume expected, not 'c0'"),
        (".0 ", "", 12, "token 12: rest of cell volume expected, not 'c-9'"),
        ("c-9", "b-9", 13, "token 13: cell ratio c/a expected, not 'b-9'"),
        ("c-9", "90°", 13, "token 13: cell ratio c/a expected, not '90°'"),
        ("0.30 ", "O 4f 0.30 ", 15, "token 15: coordinate x of O on 4f expected, not 'O'"),
        ("0.30 ", "", 15, 'token 15: coordinate x of O on 4f expected, not "5\'"'),
        (" <end>", "", 16, "the text ends after 16 tokens: <end> expected"),
        ("<end>", "<end> Ti", 18, "token 18: nothing after <end>, not 'Ti'"),
    ],
)
def test_a_broken_text_is_refused_with_its_place(old: str, new: str, place: int, message: str) -> None:
    assert old in RUTILE
    with pytest.raises(TextError, match=message) as caught:
        read(RUTILE.replace(old, new, 1))
    assert caught.value.line == place
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RUTILE.replace("0.30 5'", "0.00 0'"), "multiplicity 2 of P4_2/mnm, not on 4f"),
        (
            "<crystal> O 1 (P1) O 1a V0 .0 b0 .0 c0 .0 90° .0 90° .0 170° .0" + " 0.00 0'" * 3 + " <end>",
            None,
        ),
        (
            "<crystal> O 1 (P1) O 1a V0 .0 b0 .0 c0 .0 30° .0 30° .0 90° .0" + " 0.00 0'" * 3 + " <end>",
            r"no cell has the angles \(30.0, 30.0, 90.0\) degrees",
        ),
    ],
)
def test_a_text_that_no_crystal_can_follow_is_refused(text: str, message: str | None) -> None:
    if message is None:
        assert len(orbits_description.to_structure(read(text))) == 1
    else:
        with pytest.raises(TextError, match=message):
            orbits_description.to_structure(read(text))


def outcome(ids: list[int]) -> Structure | TextError:
    """What the reader says of ids: a structure, or the one error with its place."""
    try:
        found = orbits_language.from_ids(ids)
    except TextError as caught:
        error = caught
    else:
        return crystal_or_error(found)
    assert 0 <= error.line <= len(ids)
    assert str(error.line) in str(error)
    return error


def crystal_or_error(found: Description) -> Structure | TextError:
    group = space_groups.get(found.space_group)
    try:
        structure = orbits_description.to_structure(found)
    except TextError as error:
        return error
    assert len(structure) == sum(group.by_label[orbit.label].multiplicity for orbit in found.orbits)
    return structure


@unhurried
@given(st.lists(st.integers(), max_size=30))
def test_any_integers_are_read_or_refused(ids: list[int]) -> None:
    assert isinstance(outcome(ids), TextError)
    with pytest.raises(TextError):
        orbits_language.OrbitsLanguage().decode(ids)
    if any(not 0 <= i < len(vocabulary.vocabulary()) for i in ids):
        with pytest.raises(TextError, match="no token has id"):
            orbits_language.text(ids)


@patient
@given(st.data())
def test_any_beginning_of_a_text_is_refused(data: st.DataObject) -> None:
    ids = data.draw(st.sampled_from(real_ids()))
    stop = data.draw(st.integers(0, len(ids) - 1))
    error = outcome(ids[:stop])
    assert isinstance(error, TextError)
    assert error.line == stop  # it can go on from there
    assert isinstance(outcome(ids), Structure)


@patient
@given(st.data())
def test_any_mutation_of_a_text_is_read_or_refused(data: st.DataObject) -> None:
    ids = list(data.draw(st.sampled_from(real_ids())))
    token = st.integers(-1, len(vocabulary.vocabulary()))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(ids)))
        stop = start + data.draw(st.integers(0, 3))
        ids[start:stop] = data.draw(st.lists(token, max_size=3))
    outcome(ids)


@patient
@given(st.data())
def test_any_token_in_the_place_of_one_of_its_family_is_read_or_refused(data: st.DataObject) -> None:
    ids = list(data.draw(st.sampled_from(real_ids())))
    bounds = list(vocabulary.families())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(ids) - 1))
        family = int(np.searchsorted(bounds, ids[place], side="right"))
        ids[place] = data.draw(st.integers(bounds[family - 1], bounds[family] - 1))
    outcome(ids)


def test_it_is_a_language() -> None:
    ours = language.get_language("orbits")
    assert isinstance(ours, language.Language)
    assert ours.vocabulary() == vocabulary.vocabulary()
    ids = ours.ids(RUTILE)
    assert ours.encode(ours.decode(ids)) == ids
    assert ours.text(ids) == RUTILE
    assert ours.is_end(ids)
    assert not ours.is_end(ids[:-1])
    assert not ours.is_end([])
    assert ours.end_ids == (vocabulary.families().end,)
    assert ours.prompt([("O", 4), ("Ti", 2)], 136) == ids[:6]
