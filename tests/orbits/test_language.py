"""Our language: crystals come back, equal crystals have equal texts, and any ids are read or refused."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.core.structure_matcher import StructureMatcher
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from crystallm import language
from crystallm.crystallography import elements, space_groups
from crystallm.errors import InputError, TextError
from crystallm.orbits import description as orbits_description
from crystallm.orbits import language as orbits_language
from crystallm.orbits import vocabulary
from crystallm.orbits.description import Description, Orbit
from real_crystals import published, random_crystal, structures, told_otherwise

unhurried = settings(deadline=None)
patient = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

RUTILE = "<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V0 .0 c-9 .2 0.30 5' <end>"
SHARP = 1e-3
"""Å. At 0.1 Å spglib's own result depends on how a crystal is told: of 1,000 random ones, 5 move by some
0.03 Å when they are told otherwise. That is not for this language to mend."""
OTHER_CELLS = {
    "as it is": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "left-handed": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    "skewed": [[1, 1, 0], [0, 1, 0], [0, -1, 1]],
    "supercell": [[1, 0, 0], [0, 1, 0], [0, 1, 2]],
}


@cache
def real_ids() -> list[list[int]]:
    return [orbits_language.to_ids(orbits_description.describe(structure)) for structure in structures()]


def read(text: str) -> Description:
    return orbits_language.from_ids(orbits_language.ids(text))


# --- tokens ---


def test_the_vocabulary_is_the_one_that_networks_were_trained_with() -> None:
    tokens = vocabulary.vocabulary()
    assert len(tokens) == len(set(tokens)) == vocabulary.families().size == 1410
    digest = hashlib.sha256("\n".join(tokens).encode()).hexdigest()
    assert digest == "0b48ddd291309aa7a5b9a604877b2d8d97a88ce680ea73bb781ef39d7a868979"


def test_families_begin_where_their_tokens_do() -> None:
    tokens, families = vocabulary.vocabulary(), vocabulary.families()
    firsts = {name: tokens[i] for name, i in families._asdict().items() if name != "size"}
    assert firsts == {
        "start": "<crystal>", "end": "<end>", "element": elements.symbols()[0], "hundreds": "+100",
        "number": "0", "group": "(P1)", "label": "1a", "volume": "V-90", "ratio_b": "b-75",
        "ratio_c": "c-75", "angle": "10°", "rest": ".0", "coarse": "0.00", "fine": "0'",
    }  # fmt: skip
    assert tokens[families.group : families.label] == tuple(f"({s})" for s in space_groups.symbols())


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


# --- structure -> text ---


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


def test_oxidation_states_are_left_out(textbook_structures: dict[str, Structure]) -> None:
    charged = textbook_structures["rutile"].copy().add_oxidation_state_by_element({"Ti": 4, "O": -2})
    assert orbits_description.describe(charged) == orbits_description.describe(textbook_structures["rutile"])


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


@pytest.mark.parametrize(
    ("species", "points", "kind", "message"),
    [
        (["Po"], [[0, 0, 0]], InputError, "element Po .* no token"),
        (["X"], [[0, 0, 0]], InputError, "'X' is not an element"),
        ([{"Na": 0.5}], [[0, 0, 0]], InputError, "Na0.5: sites shared by elements or partly empty"),
        ([{"Na": 0.5, "K": 0.5}], [[0, 0, 0]], InputError, "sites shared by elements"),
        ([], [], InputError, "no atom"),
        (["Na"], [[float("nan"), 0, 0]], InputError, "NaN or infinity"),
        (["Na", "Na"], [[0, 0, 0], [0.001, 0, 0]], TextError, "no symmetry"),
    ],
)
def test_structures_without_a_text_are_refused(species, points, kind, message) -> None:
    with pytest.raises(kind, match=message) as caught:
        orbits_description.describe(Structure(Lattice.cubic(4), species, points))
    assert "\n" not in str(caught.value)


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


# --- there and back ---


def test_the_cell_is_told_beside_its_atoms() -> None:
    crystal = read("<crystal> Na 1 (P-1) Na 1a V0 .0 b-1 .9 c2 .0 80° .0 95° .5 100° .9 <end>")
    assert crystal.cell == (0, -1, 20, 800, 955, 1009)
    lattice = orbits_description.to_structure(crystal).lattice
    assert lattice.volume == pytest.approx(elements.get("Na").volume)
    assert lattice.b / lattice.a == pytest.approx(np.exp(-1 / 200))
    assert lattice.c / lattice.a == pytest.approx(np.exp(20 / 200))
    assert lattice.angles == pytest.approx((80.0, 95.5, 100.9))


def test_ties_of_lengths_and_angles_are_the_groups() -> None:
    tied = {75: (1, 1, 90), 143: (1, 1, 120), 146: (1, 1, 120), 168: (1, 1, 120), 195: (1, 1, 90)}
    for number in tied:
        group = space_groups.get(number)
        cell = [50, 40][: len(group.free_cell)]
        a, b, c, *angles = orbits_description.cell_parameters([("Si", 3)], group, cell)
        volume = Lattice.from_parameters(a, b, c, *angles).volume
        assert volume == pytest.approx(3 * elements.get("Si").volume * np.exp(50 / 200))
        assert (a, c) == (b, pytest.approx(a * np.exp(40 / 200) if len(cell) == 2 else a))
        assert angles == [90, 90, tied[number][2]]


@unhurried
@given(
    number=st.integers(1, 230),
    lengths=st.tuples(*[st.floats(6, 15)] * 3),
    angles=st.tuples(*[st.floats(75, 105)] * 3),
)
def test_cells_come_back_within_half_a_step(number, lengths, angles) -> None:
    group = space_groups.get(number)
    free = dict(zip(space_groups.PARAMETERS, [*lengths, *angles], strict=True))
    points = group.orbit(np.array([0.1234, 0.2871, 0.3917]))
    lattice = Lattice.from_parameters(*group.complete_cell({name: free[name] for name in group.free_cell}))
    crystal = Structure(lattice, ["Cs"] * len(points), points)
    told = Lattice(orbits_description.symmetry(crystal, SHARP).std_lattice)
    back = orbits_description.to_structure(orbits_description.describe(crystal, SHARP)).lattice
    for one, other in (
        (told.volume, back.volume),
        (told.b / told.a, back.b / back.a),
        (told.c / told.a, back.c / back.a),
    ):
        assert abs(np.log(one / other)) <= 0.0025 + 1e-9
    assert np.abs(np.subtract(told.angles, back.angles)).max() <= 0.05 + 1e-9


def test_real_cells_have_about_the_volume_of_their_atoms() -> None:
    factors = np.exp([orbits_language.from_ids(ids).cell[0] / orbits_description.SCALE for ids in real_ids()])
    assert factors.min() > 0.6
    assert np.mean((factors > 0.7) & (factors < 1.4)) > 0.95


TOLD_ANEW = {
    "C-102871-6259-15",  # P1: by another image of its cell, in steps of 0.01 Å too
    "C-136245-2409-15",  # P-1: b and c are equally long in steps of 0.5 %, and spglib takes the other angles
    "mp-698096",  # P-1: the same of a and b
    "mp-1178989",  # P2_1/c: c or a + c, nearly equally long, in steps of 0.01 Å too
}
"""Crystals that say something else once read and told again: of cells nearly alike, chance takes one."""


def test_real_crystals_are_told_the_same_once_read() -> None:
    found = set()
    for row, ids in zip(published(), real_ids(), strict=True):
        if orbits_language.OrbitsLanguage().encode(orbits_language.OrbitsLanguage().decode(ids)) != ids:
            found.add(row["id"])
    assert found <= TOLD_ANEW


def test_real_crystals_come_back() -> None:
    matcher = StructureMatcher(primitive_cell=False)  # both are conventional cells
    lost = []
    for row, structure, ids in zip(published(), structures(), real_ids(), strict=True):
        refined = SpacegroupAnalyzer(structure, 0.1).get_refined_structure()
        found = orbits_language.from_ids(ids)
        assert orbits_language.to_ids(found) == ids
        back = orbits_description.to_structure(found)
        assert dict(found.composition) == {str(e): n for e, n in back.composition.items()}
        if not matcher.fit(refined, back):
            lost.append(row["id"])
    assert lost == []


@pytest.mark.parametrize("numbers", [range(1, 75), range(75, 195), range(195, 231)], ids=str)
def test_crystals_of_all_space_groups_come_back(numbers: range) -> None:
    matcher = StructureMatcher()
    for number in numbers:
        crystal = random_crystal(number, seed=1)
        ids = orbits_language.to_ids(orbits_description.describe(crystal))
        assert orbits_language.from_ids(ids).space_group == number
        assert matcher.fit(crystal, orbits_description.to_structure(orbits_language.from_ids(ids))), number


@pytest.mark.parametrize("numbers", [range(1, 75), range(75, 195), range(195, 231)], ids=str)
def test_the_same_crystal_has_the_same_text_however_it_is_told(numbers: range) -> None:
    for number in numbers:
        crystal = random_crystal(number, seed=2, on_grid=True)
        rng = np.random.default_rng(number)
        found = orbits_description.describe(crystal, SHARP)
        assert orbits_description.describe(orbits_description.to_structure(found), SHARP) == found
        for how, cell in OTHER_CELLS.items():
            assert orbits_description.describe(told_otherwise(crystal, rng, cell), SHARP) == found, (
                number,
                how,
            )
        reduced = told_otherwise(crystal, rng, OTHER_CELLS["as it is"]).get_reduced_structure("niggli")
        assert orbits_description.describe(reduced, SHARP) == found, (number, "Niggli cell")


@pytest.mark.parametrize("number", [1, 4, 19, 25, 62, 76, 129, 146, 152, 166, 178, 198, 216, 227])
def test_every_element_of_the_normaliser_leaves_the_text_alone(number: int) -> None:
    crystal = random_crystal(number, seed=3, on_grid=True)
    group = space_groups.get(number)
    found = orbits_description.describe(crystal, SHARP)
    rng = np.random.default_rng(number)
    for w, s in zip(*group.normaliser, strict=True):
        shift = s.copy()
        shift[list(group.polar)] += rng.random(len(group.polar))
        moved = Structure(crystal.lattice, crystal.species, crystal.frac_coords @ w.T + shift)
        assert orbits_description.describe(moved, SHARP) == found


def test_an_origin_on_another_equivalent_position_is_the_same_crystal() -> None:
    first = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    second = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Cl", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    assert orbits_description.describe(first) == orbits_description.describe(second)


def test_polar_crystals_begin_at_zero() -> None:
    for number in (1, 3, 6, 8, 25, 36, 75, 99, 143, 156, 168, 186):
        group = space_groups.get(number)
        first = orbits_description.describe(random_crystal(number, seed=4, on_grid=True), SHARP).orbits[0]
        point = group.by_label[first.label].point([v / orbits_description.STEPS for v in first.coordinates])
        assert not point[list(group.polar)].any()


@pytest.mark.parametrize(("number", "mirrored"), [(152, 154), (76, 78), (178, 179), (212, 213), (144, 145)])
def test_a_mirror_image_gets_the_other_space_group(number: int, mirrored: int) -> None:
    crystal = random_crystal(number, seed=5)
    image = Structure(crystal.lattice, crystal.species, -crystal.frac_coords)
    assert orbits_description.describe(crystal).space_group == number
    assert orbits_description.describe(image).space_group == mirrored


@pytest.mark.parametrize("number", [1, 4, 19, 90, 150, 182, 198, 214])
def test_a_mirror_image_in_the_same_group_has_another_text(number: int) -> None:
    for seed in range(20):
        crystal = random_crystal(number, seed, on_grid=True)
        # two general orbits or more, so that it is chiral itself and not by its group alone
        if sum(len(o.coordinates) == 3 for o in orbits_description.describe(crystal, SHARP).orbits) >= 2:
            break
    image = Structure(crystal.lattice, crystal.species, -crystal.frac_coords)
    one, other = orbits_description.describe(crystal, SHARP), orbits_description.describe(image, SHARP)
    assert (one.space_group, other.space_group) == (number, number)
    assert one != other
    for description in (one, other):
        assert orbits_description.describe(orbits_description.to_structure(description), SHARP) == description


def test_the_standard_text_keeps_the_space_group_that_was_written() -> None:
    from crystallm.cif import parser

    higher = RUTILE.replace("(P4_2/mnm) Ti 2a O 4f", "(P4_2nm) Ti 2a O 4c").replace(
        "0.30 5'", "0.00 0' 0.30 5' 0.00 0'"
    )
    parsed = parser.parse(orbits_language.OrbitsLanguage().standard_text(orbits_language.ids(higher)))
    assert (parsed.space_group, parsed.printed_number) == ("P4_2nm", 102)
    assert orbits_description.describe(orbits_description.to_structure(read(higher))).space_group == 136


# --- broken texts ---


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


# --- the protocol ---


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
