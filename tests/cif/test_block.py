"""The lenient reader: items, loops and rows of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystallm.cif import block
from crystallm.errors import CrystallmError

TEXT = """\
# a comment
data_salt
_cell_length_a 5.64(2)
_space_group_name_H-M_alt 'F m -3 m'
loop_
 _atom_site_label
 _atom_site_fract_x
Na1+ 0
Cl1 "1/2" # behind a row
loop_
_space_group_symop_operation_xyz
'x, y, z' '-x, -y, -z'
_cell_formula_units_Z 4
data_second
_cell_length_a 9
"""


def test_items_loops_and_rows():
    read = block.read(TEXT)
    assert read.name == "salt"
    assert block.number(read.tags[block.CELL[0]]) == 5.64
    assert read.first(block.GROUP_NAMES) == "F m -3 m"
    assert read.first((block.VOLUME,)) is None
    assert read.atoms() == [
        {"_atom_site_label": "Na1+", "_atom_site_fract_x": "0"},
        {"_atom_site_label": "Cl1", "_atom_site_fract_x": "1/2"},
    ]
    assert [block.row_symbol(row) for row in read.atoms()] == ["Na", "Cl"]
    name, rows = read.operators()
    assert [row[name] for row in rows] == ["x, y, z", "-x, -y, -z"]
    assert read.rows("_no_such_column") == []


@pytest.mark.parametrize("second", ["data_b", "DATA_b", "  data_b"])
def test_text_fields_and_what_follows_the_first_block_are_not_read(second):
    text = f"""\
DATA_a
_cell_length_a 5
_publ_text
;
_cell_length_b 9
data_c
;
_cell_length_c 6
{second}
_cell_length_b 7
"""
    read = block.read(text)
    assert read.name == "a"
    assert read.tags == {"_cell_length_a": "5", "_publ_text": "text", "_cell_length_c": "6"}


def test_rows_that_values_do_not_fill():
    with pytest.raises(CrystallmError, match="3 values do not fill rows of 2"):
        block.read("data_\nloop_\n_atom_site_label\n_atom_site_fract_x\nNa 0 Cl").atoms()
    with pytest.raises(CrystallmError, match="no atom rows"):
        block.read("data_").atoms()


@pytest.mark.parametrize("value", ["?", "1e999", "nan", ""])
def test_values_that_are_not_numbers(value):
    with pytest.raises(CrystallmError, match="is not a"):
        block.number(value)


@pytest.mark.parametrize("value", ["", "na", "Xx1", "1Na"])
def test_values_that_are_not_elements(value):
    with pytest.raises(CrystallmError, match="is not an element"):
        block.symbol_of(value)


@given(st.text(alphabet="data_loop \n'\"#_;a1.()", max_size=200))
def test_any_text_is_read(text):
    read = block.read(text)
    assert all(columns or not values for columns, values in read.loops)
