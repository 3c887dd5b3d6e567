"""A CIF is read quickly where it is plain, and by pymatgen where it is not; both find the same atoms."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Structure

from crystallm.cif import standard_structure, structure_reader, writer
from crystallm.errors import CrystallmError
from real_crystals import published


def same(one, other, tolerance=0.0):
    """Equal to the last bit, since a text's digits depend on it; or within a tolerance."""
    return (
        np.array_equal(one.lattice.matrix, other.lattice.matrix)
        and np.allclose(one.frac_coords, other.frac_coords, rtol=0, atol=tolerance)
        and [s.symbol for s in one.species] == [s.symbol for s in other.species]
    )


def test_real_crystals_are_read_as_pymatgen_reads_them():
    rows = published()[::5]
    quick = 0
    for row in rows:
        for text, tolerance in ((row["cif"], 0.0), (writer.to_cif(row["text"]), 1e-12)):
            quick += structure_reader._quickly(text) is not None
            assert same(structure_reader.structure(text), Structure.from_str(text, fmt="cif"), tolerance)
    assert quick >= 1.8 * len(rows)


def test_a_standard_text_is_the_crystal_that_it_means():
    for row in published()[:20]:
        assert same(structure_reader.structure(row["text"]), standard_structure.to_structure(row["text"]))


def test_several_lines_of_text_may_say_anything(textbook_structures):
    text = textbook_structures["rutile"].to(fmt="cif")
    told = text.replace("\nloop_", "\n_publ_comment\n;\nloop_\n_cell_length_a 1\n;\nloop_", 1)
    assert same(structure_reader.structure(told), Structure.from_str(told, fmt="cif"))
    assert structure_reader.structure(told).lattice.a == pytest.approx(4.594)


def test_oxidation_states_are_left_out(textbook_structures):
    structure = textbook_structures["rocksalt"].copy()
    structure.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    found = structure_reader.structure(structure.to(fmt="cif"))
    assert {str(species) for species in found.species} == {"Na", "Cl"}


@pytest.mark.parametrize("text", ["", "noise", "data_x\n_cell_length_a 3\n", "data_x\nloop_\n_a\n_b\n1\n"])
def test_what_is_no_crystal_is_told_in_a_line(text):
    with pytest.raises(CrystallmError) as caught:
        structure_reader.structure(text)
    assert "\n" not in str(caught.value)
