"""Structures become descriptions and come back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.core.structure_matcher import StructureMatcher
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from crystallm.crystallography import elements, space_groups
from crystallm.errors import InputError, TextError
from crystallm.orbits import description as orbits_description
from crystallm.orbits import language as orbits_language
from real_crystals import published, random_crystal, structures

if TYPE_CHECKING:
    from crystallm.orbits.description import Description

unhurried = settings(deadline=None)

SHARP = 1e-3
"""Å. At 0.1 Å spglib's own result depends on how a crystal is told: of 1,000 random ones, 5 move by some
0.03 Å when they are told otherwise. That is not for this language to mend."""


@cache
def real_ids() -> list[list[int]]:
    return [orbits_language.to_ids(orbits_description.describe(structure)) for structure in structures()]


def read(text: str) -> Description:
    return orbits_language.from_ids(orbits_language.ids(text))


def test_oxidation_states_are_left_out(textbook_structures: dict[str, Structure]) -> None:
    charged = textbook_structures["rutile"].copy().add_oxidation_state_by_element({"Ti": 4, "O": -2})
    assert orbits_description.describe(charged) == orbits_description.describe(textbook_structures["rutile"])


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
