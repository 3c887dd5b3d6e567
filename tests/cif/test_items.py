"""Items of a CIF by name, whatever their case, their quotes and their order."""

from __future__ import annotations

import pytest

from crystallm.cif import items
from crystallm.errors import TextError

ATOMS = "loop_\n_atom_site_fract_x\n0\n"


def test_names_have_no_case_and_no_dots():
    block = items.crystal(
        "DATA_a\n_Cell.Length_A '5.64(2)'\nLOOP_\n_atom_site.Fract_X\n_ATOM_SITE_LABEL\n0 'Na 1'"
    )
    assert block.name == "a"
    assert block.first(("_x", "_cell_length_a")) == "5.64(2)"
    assert block.column(("_atom_site_label",)) == ["Na 1"]


def test_what_is_not_known_is_missing():
    block = items.read("data_a\n_a ?\n_b .\n_c '?'\n_d 1\nloop_\n_e\n?\n.\n")[0]
    assert [block.first((name,)) for name in ("_a", "_b", "_c", "_d", "_x")] == [None, None, None, "1", None]
    assert block.first(("_a", "_d")) == "1"
    assert block.column(("_e",)) == [None, None]
    assert block.column(("_x",)) is None


def test_text_fields_hold_text():
    block = items.read("data_a\n_t\n;\nloop_\ndata_b\n_cell_length_a 9\n;\n_cell_length_a 5\n")
    assert len(block) == 1
    assert block[0].first(("_cell_length_a",)) == "5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("noise", "no data block"),
        ("data_a\n_b 1 2\n", "line 2"),
        ("data_a\nloop_\n_b\n_c\n1 2 3\n", "do not fill its rows"),
        ("data_a\n_cell_length_a 1\n_Cell_Length_A 2\n", "twice, with different values"),
        (f"data_a\n{ATOMS}data_b\n{ATOMS}", "2 crystals are in one text"),
        ("data_a\n_b 1\n", "neither a cell nor atoms"),
        ("data_a\n_cell_length_a 1\n", "a cell and no atoms"),
        ("data_a\nloop_\n_atom_site_Cartn_x\n0\n", "Cartesian coordinates alone"),
    ],
)
def test_what_is_no_crystal_has_a_reason_of_its_own(text, message):
    with pytest.raises(TextError, match=message):
        items.crystal(text)


@pytest.mark.parametrize(
    ("value", "number", "unit"),
    [
        ("0.25", 0.25, 0.01),
        (".25", 0.25, 0.01),
        ("-1.", -1, 1),
        ("5.640(20)", 5.64, 0.02),
        ("90.(0)", 90, 1),
        ("1.5e-2", 0.015, 0.001),
    ],
)
def test_numbers_have_the_unit_of_their_last_digit(value, number, unit):
    assert items.number(value, "x") == pytest.approx((number, unit))


@pytest.mark.parametrize("value", [None, "", "1/3", "5,64", "0.5a", "nan", "inf", "1 2", "--1", "0x1"])
def test_everything_else_is_no_number(value):
    with pytest.raises(TextError, match="^the angle is "):
        items.number(value, "the angle")
