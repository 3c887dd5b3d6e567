"""The crystal that a generated text prints, as pymatgen's parser reads it."""

from __future__ import annotations

import pytest

from crystallm.cif import block, printed_crystal
from crystallm.errors import CrystallmError
from real_crystals import published


def test_the_identity_of_a_standard_text_stands_for_its_group():
    row = published()[0]
    read = block.read(row["text"])
    cell = printed_crystal.cell(read)
    assert printed_crystal.printed_group(read) == row["text"].split("H-M ")[1].split("\n")[0]
    assert len(cell.symbols) == len(cell.coords) == len(cell.kinds)
    assert len(cell.operators) > 1


def test_shared_sites_have_no_symbol():
    text = published()[0]["text"].replace(" 1.0\n", " 0.5\n")
    assert set(printed_crystal.cell(block.read(text)).symbols) == {""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_x\n", "has no _cell_length_a"),
        (published()[0]["text"].replace("_atom_site_fract_x", "_x"), "no atom rows"),
        (published()[0]["text"].replace("_symmetry_space_group_name_H-M", "_x"), "no space group"),
    ],
)
def test_what_is_missing_is_named(text, message):
    with pytest.raises(CrystallmError, match=message):
        printed_crystal.cell(block.read(text))
