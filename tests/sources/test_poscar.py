"""POSCARs of VASP: scales, symbols with potentials, and what names no element."""

from __future__ import annotations

import pytest

from crystallm.errors import TextError
from crystallm.sources import poscar

HEAD = "salt\n{scale}\n4 0 0\n0 4 0\n0 0 4\n"


def text(symbols="Cs Cl", counts="1 1", mode="Direct", scale="1.0", rows="0 0 0\n0.5 0.5 0.5\n"):
    named = f"{symbols}\n" if symbols else ""
    return f"{HEAD.format(scale=scale)}{named}{counts}\n{mode}\n{rows}"


@pytest.mark.parametrize(
    ("scale", "volume"), [("1.0", 64), ("0.5 # half", 8), ("-100", 100), ("1 2 0.5", 64), ("1.0d0", 64)]
)
def test_scales(scale, volume):
    found, _ = poscar.read(text(scale=scale))
    assert found.volume == pytest.approx(volume)
    found, _ = poscar.read(text(scale=scale, mode="cartesian", rows="0 0 0\n2 2 2\n"))
    assert found[1].frac_coords.tolist() == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("symbols", "elements"),
    [
        ("CS CL", "Cs Cl"),
        ("Cs+ Cl1-", "Cs Cl"),
        ("Cs_sv/1a2b3c Cl/4d", "Cs Cl"),
        ("Ga_d_GW As_GW", "Ga As"),
        ("CO O", "Co O"),
        ("D Li", "H Li"),
        ("Cs Cl ! comment", "Cs Cl"),
    ],
)
def test_symbols(symbols, elements):
    found, notes = poscar.read(text(symbols))
    assert [site.specie.symbol for site in found] == elements.split()
    assert notes == []


def test_selective_dynamics_velocities_and_labels_are_left_aside():
    rows = "0 0 0 T F T Cs1+\n0.5 0.5 0.5 T T F Cl\n\n0 0 0\n0 0 0\n"
    found, _ = poscar.read(text(mode="Selective dynamics\nDirect", rows=rows))
    assert found.composition.reduced_formula == "CsCl"


def test_the_title_names_elements_where_no_line_does():
    found, notes = poscar.read(text("").replace("salt", "Cs Cl"))
    assert found.composition.reduced_formula == "CsCl"
    assert notes == ["elements are named by the title, Cs Cl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x", "has 1 lines"),
        (text(""), "not named"),
        (text("").replace("salt", "Cs"), "not named"),
        (text("Cs X"), "'X' is not an element"),
        (text("Cs Xa"), "'Xa' is not an element"),
        (text("H.5 Cl"), "'H.5' is not an element"),
        (text("Cs"), "1 symbols for 2 numbers"),
        (text(counts="1 -1"), "not whole numbers"),
        (text(counts="1 5"), "fewer lines than atoms"),
        (text(counts="1 900000000"), "fewer lines than atoms"),
        (text(rows="0 0\n0 0 0\n"), "position"),
        (text(rows="0 0 a\n0 0 0\n"), "not numbers"),
        (text(rows="0 0 nan\n0 0 0\n"), "not numbers"),
        (text(scale="0"), "scale is 0"),
        (text(scale="1 2"), "one number or three"),
        (text(scale="1 -2 1"), "positive"),
        (text(mode="0.5 0.5 0.5"), "neither called Direct nor Cartesian"),
        (text(rows="0 0 0 Cl\n0.5 0.5 0.5 Cs\n"), "has the label 'Cl'"),
    ],
)
def test_what_is_no_crystal_has_a_reason(content, message):
    with pytest.raises(TextError, match=message):
        poscar.read(content)
