"""Elements by the names that files give them: right, or an error."""

from __future__ import annotations

import pytest

from crystallm.crystallography import element_names
from crystallm.crystallography.elements import SYMBOLS_BY_NUMBER
from crystallm.errors import TextError


@pytest.mark.parametrize("symbol", SYMBOLS_BY_NUMBER)
def test_a_symbol_is_known_in_any_case_and_with_any_charge(symbol):
    whole = symbol if symbol in SYMBOLS_BY_NUMBER[94:] else symbol.upper()  # NH4 and NO3 are none of them
    for name in (
        symbol,
        whole,
        symbol.lower(),
        f"{symbol}3+",
        f"{symbol}+2",
        f"{symbol}-",
        f"{symbol}0+",
    ):
        assert element_names.element(name) == symbol


def test_isotopes_count_as_hydrogen():
    assert element_names.element("D") == element_names.element("T") == element_names.element("D1-") == "H"
    assert element_names.of_type("T", {"T", "Li"}) == ("H", "")
    with pytest.raises(TextError, match="tritium or a tetrahedral site"):
        element_names.of_type("T")


@pytest.mark.parametrize(
    "name", ["X", "Xa", "", "0.8Nb+0.2Zr", "Nb/Zr", "Cval", "NH4", "CO3", "NO3", "M", "Uuu", "H.5", "vacancy"]
)
def test_what_is_no_element_is_an_error(name):
    with pytest.raises(TextError, match="is not an element"):
        element_names.of_type(name)


@pytest.mark.parametrize("name", ["OH", "OH1-", "Wat", "WAT", "H2O", "OW", "HOH", "OH2"])
def test_oxygen_of_water_and_hydroxyl_groups_is_oxygen(name):
    symbol, note = element_names.of_type(name)
    assert symbol == "O"
    assert "without its hydrogen" in note


@pytest.mark.parametrize(
    ("label", "symbol"),
    [
        ("Fe1", "Fe"), ("FE1", "Fe"), ("fe1", "Fe"), ("CA1", "Ca"), ("CL", "Cl"), ("O1A", "O"), ("OH1", "O"),
        ("Ow2", "O"), ("Oa", "O"), ("OA1", "O"), ("Wat1", "O"), ("AlT", "Al"), ("Na2+", "Na"), ("HA1", "H"),
        ("D1", "H"), ("C12B", "C"), ("W1", "W"),
    ],
)  # fmt: skip
def test_a_label_names_its_element(label, symbol):
    assert element_names.of_label(label)[0] == symbol


@pytest.mark.parametrize("label", ["T1", "M1", "X1", "1", "", "Vac1", "VA1", "Cat1", "CAT", "R2", "Cg1", "?"])
def test_a_label_may_name_no_element(label):
    with pytest.raises(TextError, match="names no element"):
        element_names.of_label(label)


@pytest.mark.parametrize(
    ("label", "printed", "symbol"),
    [
        ("SI1", "Si C", "Si"),
        ("CO1", "C O H", "C"),
        ("HO1", "H O", "H"),
        ("NI2", "Ni O", "Ni"),
        ("NH1", "N H", "N"),
    ],
)
def test_the_printed_formula_decides_between_one_symbol_and_two(label, printed, symbol):
    assert element_names.of_label(label, printed.split())[0] == symbol
    with pytest.raises(TextError, match="may name"):
        element_names.of_label(label)
