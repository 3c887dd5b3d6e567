"""Crystals become members of prototypes, and get other elements."""

from __future__ import annotations

import pytest
from pymatgen.core.structure_matcher import StructureMatcher

from crystallm.errors import TextError
from crystallm.orbits import description
from crystallm.references import prototypes
from known_crystals import member, with_elements
from real_crystals import structures


def test_a_prototype_does_not_depend_on_the_elements() -> None:
    assert member("rocksalt", ("Na", "Cl")).prototype == member("rocksalt", ("O", "Mg")).prototype
    assert (
        member("perovskite", ("Sr", "Ti", "O")).prototype == member("perovskite", ("Mg", "K", "F")).prototype
    )
    assert member("rocksalt", ("Na", "Cl")).prototype != member("wurtzite", ("Zn", "S")).prototype


def test_roles_tell_which_element_is_where() -> None:
    first, second = (member("perovskite", symbols) for symbols in (("Sr", "Ti", "O"), ("Ti", "Sr", "O")))
    assert sorted(first.elements[:2]) == ["Sr", "Ti"]
    assert first.elements == (second.elements[1], second.elements[0], "O")


def test_a_crystal_with_its_own_elements_is_itself() -> None:
    matcher = StructureMatcher(0.01, 0.02, 0.5)
    for structure in structures()[::50]:
        described = description.describe(structure)
        one = prototypes.member_of(described)
        again = prototypes.substituted(one, one.elements)
        assert (again.composition, again.space_group, again.cell) == (
            described.composition, described.space_group, described.cell,
        )  # fmt: skip
        assert matcher.fit(description.to_structure(described), description.to_structure(again))


def test_substitution_gives_the_crystal_of_the_other_elements() -> None:
    made = prototypes.substituted(member("rutile", ("Ti", "O")), ("Sn", "O"))
    wanted = description.describe(with_elements("rutile", ("Sn", "O")))
    assert (made.composition, made.orbits) == (wanted.composition, wanted.orbits)
    assert made.cell == member("rutile", ("Ti", "O")).cell  # in units of the volumes of the new atoms


def test_equal_substitutions_of_a_prototype_are_recognised() -> None:
    salt = member("rocksalt", ("Na", "Cl")).prototype
    perovskite = member("perovskite", ("Sr", "Ti", "O")).prototype
    arranged = prototypes.arranged
    assert arranged(225, salt.positions, (0, 1)) == arranged(225, salt.positions, (1, 0))
    assert arranged(221, perovskite.positions, (0, 1, 2)) != arranged(221, perovskite.positions, (1, 0, 2))


def test_names_of_prototypes_are_read_back() -> None:
    rutile = member("rutile", ("Ti", "O")).prototype
    assert rutile.text == "A1B2 136 A2a B4f"
    assert prototypes.CrystalType.parse(rutile.text) == rutile
    assert rutile.z == 2
    for text in ("", "A1B2", "A1B2 300 A2a", "A1B2 136 2a", "A1B2 136 A9z"):
        with pytest.raises(TextError, match="is no prototype"):
            prototypes.CrystalType.parse(text)


def test_roles_of_a_composition_rise_in_number() -> None:
    assert prototypes.roles_of({"O": 6, "Sr": 2, "Ti": 2}) == ((1, 1, 3), ("Sr", "Ti", "O"))
    assert list(prototypes.assignments((1, 2, 1))) == [(0, 2, 1), (2, 0, 1)]
