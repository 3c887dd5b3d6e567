"""Prompts from a template structure: what stays, what is replaced, and what is refused."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from crystallm import language
from crystallm.errors import InputError, TextError
from crystallm.generation import template
from crystallm.orbits import description

ORBITS, CIF = language.get_language("orbits"), language.get_language("cif")


def test_the_orbits_language_keeps_group_and_positions(kagome):
    text = ORBITS.text(template.template_prompt(kagome, "YMn6Ge6", ORBITS))
    assert text.startswith("<crystal> Y 1 Mn 6 Ge 6 (P6/mmm) Y 1")
    before = description.describe(kagome)
    for orbit in before.orbits:
        assert f"{ {'Zr': 'Y', 'Mn': 'Mn', 'Sn': 'Ge'}[orbit.element] } {orbit.label}" in text


def test_the_published_language_keeps_the_group_alone(kagome):
    text = CIF.text(template.template_prompt(kagome, "Y Mn6 Ge6", CIF))
    assert text.startswith("data_Y1Mn6Ge6\n")
    assert text.endswith("_symmetry_space_group_name_H-M P6/mmm\n")


def test_the_cell_has_as_many_units_as_that_of_the_template(textbook_structures):
    text = ORBITS.text(template.template_prompt(textbook_structures["rutile"], "SnO2", ORBITS))
    assert text == "<crystal> Sn 2 O 4 (P4_2/mnm) Sn 2a O 4f"
    # So it is from a primitive cell, a supercell, or with the formula of another multiple.
    for structure in (
        textbook_structures["rutile"] * (1, 1, 2),
        textbook_structures["rutile"].get_primitive_structure(),
    ):
        assert ORBITS.text(template.template_prompt(structure, "Sn3O6", ORBITS)) == text


def test_elements_of_equal_counts_are_matched_by_electronegativity(textbook_structures):
    assert template._match_elements(textbook_structures["rocksalt"], "OMg") == {"Na": "Mg", "Cl": "O"}
    assert template._match_elements(textbook_structures["perovskite"], "CaSnO3") == {
        "Sr": "Ca",
        "Ti": "Sn",
        "O": "O",
    }
    # Elements that change places: both at once, not one after the other.
    prompt = template.template_prompt(textbook_structures["rutile"], "O1 Ti2", ORBITS)
    assert ORBITS.text(prompt) == "<crystal> Ti 4 O 2 (P4_2/mnm) Ti 4f O 2a"


def test_a_distortion_within_the_tolerance_keeps_the_symmetry(textbook_structures):
    bent = textbook_structures["rutile"].copy()
    bent.translate_sites([2], [0.004, 0, 0])
    assert "(P4_2/mnm)" in ORBITS.text(template.template_prompt(bent, "SnO2", ORBITS))
    assert "(P4_2/mnm)" not in ORBITS.text(template.template_prompt(bent, "SnO2", ORBITS, symprec=1e-3))


@pytest.mark.parametrize("wanted", ["Sn2O3", "SnO", "SnTiO4", "Sn"])
def test_a_formula_of_other_proportions_is_refused(textbook_structures, wanted):
    with pytest.raises(InputError, match=f"'{wanted}' has other proportions than TiO2: give a formula with"):
        template.template_prompt(textbook_structures["rutile"], wanted, ORBITS)


def test_a_site_that_elements_share_is_refused():
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(InputError, match="sites shared by elements"):
        template.template_prompt(shared, "CsCl", ORBITS)


def test_a_template_is_the_only_crystal_of_its_file(tmp_path, textbook_structures):
    path = tmp_path / "x.cif"
    textbook_structures["rutile"].to(str(path))
    assert template.read(path).composition.reduced_formula == "TiO2"
    text = path.read_text()
    path.write_text(text + text.replace("data_TiO2", "data_other"))
    with pytest.raises(InputError, match="holds 2 crystals: give a file of one"):
        template.read(path)
    path.write_text(text.replace("_cell_length_a", "_cell_length_of_a"))
    with pytest.raises(TextError, match="it has no _cell_length_a"):
        template.read(path)
