"""What is asked for, and what is meant where nothing is said."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, with_default_z


@pytest.mark.parametrize("formula", ["TiO2", "SrTiO3", "Si", "O2", "Na2O2", "(NH4)2SO4", "CaSO4.2H2O"])
def test_a_reduced_formula_without_z_leaves_z_open(formula: str) -> None:
    assert with_default_z(Request(formula=formula, n=3)) == Request(formula=formula, z="auto", n=3)
    assert len(interpret(with_default_z(Request(formula=formula))).cells) > 1


@pytest.mark.parametrize("formula", ["Ti2O4", "Ba4Ti4O12", "Si2", "O4", "2TiO2", "O4Ti2"])
def test_a_multiple_is_the_cell_as_written(formula: str) -> None:
    assert with_default_z(Request(formula=formula)) == Request(formula=formula)


def test_what_is_said_stays() -> None:
    for said in (
        Request(formula="TiO2", z=1),
        Request(formula="TiO2", z="auto"),
        Request(prompt="data_Ti1O2"),
        Request(),
    ):
        assert with_default_z(said) == said


def test_no_formula_is_refused() -> None:
    with pytest.raises(InputError, match="Xx is not an element"):
        with_default_z(Request(formula="Xx2"))
