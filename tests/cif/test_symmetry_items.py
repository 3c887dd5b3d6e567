"""Operators and symbols of space groups: those of the file, or an error; never P1 by default."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest

from crystallm.cif import items, symmetry_items
from crystallm.errors import TextError


def settings(text):
    return symmetry_items.settings(items.read(f"data_a\n{text}\n")[0])


def looped(*operators, name="_symmetry_equiv_pos_as_xyz"):
    return "\n".join(["loop_", name, *(f"'{xyz}'" for xyz in operators)])


@pytest.mark.parametrize(
    ("symbol", "names"),
    [
        ("F d -3 m", ["F d -3 m:1", "F d -3 m:2"]),
        ("Fd3m", ["F d -3 m:1", "F d -3 m:2"]),
        ("F d -3 m S", ["F d -3 m:1"]),
        ("F d -3 m Z", ["F d -3 m:2"]),
        ("F d -3 m :2", ["F d -3 m:2"]),
        ("R -3 c", ["R -3 c:H", "R -3 c:R"]),
        ("R -3 c RS", ["R -3 c:R"]),
        ("R-3c:H", ["R -3 c:H"]),
        ("P 21/n", ["P 1 21/n 1", "P 1 1 21/n", "P 21/n 1 1"]),
        ("P 2(1)/c", ["P 1 21/c 1", "P 21/c 1 1"]),
        ("P2_1/n 2_1/m 2_1/a", ["P n m a"]),
        ("C m c e", ["C m c a"]),
        ("C m m e", ["C m m a"]),
        ("A e m 2", ["A b m 2"]),
        ("pnma", ["P n m a"]),
        ("P 63/m m c S", ["P 63/m m c"]),
        ("I a 3 d", ["I a -3 d"]),
    ],
)
def test_symbols_are_known_in_many_spellings(symbol, names):
    assert [one.name for one in symmetry_items.of_symbol(symbol)] == names


def test_every_setting_of_the_table_is_found_by_its_name():
    for group in gemmi.spacegroup_table():
        found = symmetry_items.of_symbol(group.xhm())
        assert len(found) == 1 or group.hm.count(" ") < 3
        assert len({one.number for one in found}) == 1
        assert len(found[0].operators) == len(group.operations())
        assert group.number in {one.number for one in found}


@pytest.mark.parametrize(
    "symbol", ["", "C 2:b1", "P 1 21/z 1", "P n m a H", "F m -3 m R", "X", "P 6 3 m m c x"]
)
def test_what_is_not_known_is_an_error(symbol):
    with pytest.raises(TextError, match="is not known"):
        symmetry_items.of_symbol(symbol)


def test_the_first_of_operators_hall_symbol_symbol_and_number_counts():
    number, symbol = "_symmetry_Int_Tables_number 225", "_symmetry_space_group_name_H-M 'F m -3 m'"
    (found,), notes = settings(f"{symbol}\n{number}\n{looped('x,y,z', '-x,-y,-z')}")
    assert (len(found.operators), found.listed) == (2, True)
    assert notes == ["the operators are those of group 2, and F m -3 m is printed"]
    (found,), _ = settings("_space_group_name_Hall '-F 4vw 2vw 3'\n_space_group_name_H-M_alt 'F d -3 m'")
    assert np.array_equal(found.operators, symmetry_items.of_symbol("F d -3 m:2")[0].operators)
    (found,), _ = settings(f"{symbol}\n{looped('?')}")
    assert len(found.operators) == 192
    (found,), _ = settings(f"_symmetry_space_group_name_H-M ?\n{number}")
    assert found.name == "F m -3 m"
    assert [one.name for one in settings("_space_group_IT_number 227")[0]] == ["F d -3 m:1", "F d -3 m:2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_a 1", "gives no symmetry"),
        ("_symmetry_space_group_name_H-M 'F x'", "is not known"),
        ("_symmetry_Int_Tables_number 231", "is not the number"),
        ("_symmetry_Int_Tables_number 225\n_symmetry_space_group_name_H-M 'P n m a'", "is no. 62, and 225"),
        ("_space_group_name_Hall 'P 2n'\n_space_group_name_H-M_alt 'P n m a'", "contradict each other"),
        ("_space_group_name_Hall nonsense", "Hall symbol 'nonsense' is not known"),
        (looped("x,y,z", "-x,-y,-q"), "cannot be read"),
        (looped("x,y,z", "-x,-y"), "cannot be read"),
        (looped("x,y,z", "-x,-y,-z 1/2"), "cannot be read"),
        (looped("x,y,z", "-x,-y,z", "-x,y,-z"), "not a group"),
        (looped("x,y,z", "x,x,z"), "changes the volume"),
        (looped("-x,y,z+1/4"), "not a group"),
    ],
)
def test_what_contradicts_itself_is_an_error(text, message):
    with pytest.raises(TextError, match=message):
        settings(text)


def test_magnetic_operators_are_multiplied_with_centerings():
    (found,), notes = settings(
        looped("x,y,z,+1", "-x,-y,-z,-1", name="_space_group_symop_magn_operation.xyz")
        + "\n"
        + looped("x,y,z,+1", "x+1/2,y+1/2,z,-1", name="_space_group_symop_magn_centering.xyz")
    )
    assert len(found.operators) == 4
    assert notes == ["magnetic moments are left aside"]


def test_a_cell_fits_or_not():
    hexagonal, rhombohedral = symmetry_items.of_symbol("R -3 m")
    metric = np.array([[9.0, -4.5, 0], [-4.5, 9, 0], [0, 0, 100]])
    assert hexagonal.fits(metric)
    assert not rhombohedral.fits(metric)
    assert not symmetry_items.of_symbol("F m -3 m")[0].fits(np.diag([9.0, 9, 16]))
