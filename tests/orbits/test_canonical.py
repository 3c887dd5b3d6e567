"""Equal crystals have equal descriptions."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm.crystallography import space_groups
from crystallm.orbits import canonical
from crystallm.orbits import description as orbits_description
from real_crystals import random_crystal, told_otherwise

SHARP = 1e-3
"""Å. At 0.1 Å spglib's own result depends on how a crystal is told: of 1,000 random ones, 5 move by some
0.03 Å when they are told otherwise. That is not for this language to mend."""

OTHER_CELLS = {
    "as it is": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "left-handed": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    "skewed": [[1, 1, 0], [0, 1, 0], [0, -1, 1]],
    "supercell": [[1, 0, 0], [0, 1, 0], [0, 1, 2]],
}


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


def test_the_last_bit_of_a_tie_does_not_change_the_text() -> None:
    """Values halfway between two thousandths go up, whichever side of them arithmetic puts them on."""
    group, general = space_groups.get(1), 0
    assert len(group.wyckoff[general].free) == 3
    for error in (-2e-10, -1e-16, 0.0, 1e-16, 2e-10):
        for thousandths in (0, 62, 187, 500, 999):
            point = np.full(3, (thousandths + 0.5) / 1000 + error)
            expected = ((thousandths + 1) % 1000,) * 3
            assert canonical.coordinates(group, general, point) == expected, (thousandths, error)


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
