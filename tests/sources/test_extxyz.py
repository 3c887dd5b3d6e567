"""Frames of extended XYZ: columns in any order, and nothing but crystals."""

from __future__ import annotations

import pytest

from crystallm.errors import TextError
from crystallm.sources import extxyz

CELL = 'Lattice="4 0 0 0 4 0 0 0 4"'


def frame(comment=CELL, rows="Cs 0 0 0\nCl 2 2 2\n", n=2):
    return f"{n}\n{comment}\n{rows}"


@pytest.mark.parametrize(
    "content",
    [
        frame(),
        frame(f'{CELL} pbc="T T T"'),
        frame(f"{CELL} pbc=[true,true,true]"),
        frame(f"{CELL} pbc=T"),
        frame('cell="4 0 0 0 4 0 0 0 4"'),
        frame("lattice='4 0 0 0 4 0 0 0 4'"),
        frame("Lattice=[[4,0,0],[0,4,0],[0,0,4]] energy=1"),
        frame(f"{CELL} Properties=pos:R:3:forces:R:3:species:S:1", "0 0 0 1 1 1 Cs\n2 2 2 1 1 1 Cl\n"),
        frame(rows="CS 0 0 0\nCL 2 2 2\n"),
        frame(rows="Cs1 0 0 0\nCl1- 2 2 2\n\n"),
    ],
)
def test_a_frame_is_a_crystal(content):
    found = extxyz.read(content)
    assert found.composition.reduced_formula == "CsCl"
    assert found.volume == pytest.approx(64)
    assert found[1].frac_coords.tolist() == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (frame("no cell"), "no cell"),
        (frame('Lattice="4 0 0"'), "3 numbers in place of 9"),
        (frame('Lattice="4 0 0 0 4 0 0 0 a"'), "not made of numbers"),
        (frame('Lattice="4 0 0 0 4 0 0 0 0"'), "no volume"),
        (frame(f'{CELL} pbc="T T F"'), "not periodic"),
        (frame(f'{CELL} pbc="F F F"'), "not periodic"),
        (frame(f'{CELL} pbc="1 1 0"'), "not periodic"),
        (frame(f"{CELL} Properties=pos:R:30550000"), "no columns of atoms"),
        (frame(f"{CELL} Properties=pos:R:3"), "species:S:1"),
        (frame(f"{CELL} Properties=species:S:1:pos:R:3:x:R:9"), "fewer columns"),
        (frame(n=3), "2 lines for 3 atoms"),
        (frame(rows="X 0 0 0\nCl 2 2 2\n"), "'X' is not an element"),
        (frame(rows="Cs 0 0 a\nCl 2 2 2\n"), "not of three numbers"),
    ],
)
def test_what_is_no_crystal_has_a_reason(content, message):
    with pytest.raises(TextError, match=message):
        extxyz.read(content)
