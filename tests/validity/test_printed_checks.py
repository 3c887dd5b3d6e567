"""Checks on the printed text, each with one fault."""

from __future__ import annotations

import pytest

from conftest import textbook
from crystallm.cif import block, writer
from crystallm.errors import CrystallmError
from crystallm.validity import printed_checks


@pytest.fixture(scope="module")
def text() -> str:
    return writer.to_text(textbook()["rocksalt"])


def test_a_correct_text_has_no_faults(text):
    read = block.read(text)
    assert printed_checks.cell_faults(read) == []
    assert printed_checks.formula_faults(read) == []
    assert printed_checks.multiplicity_faults(read) == []


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("_cell_length_a", "0.4", "sensible: _cell_length_a 0.4 is not in [0.5, 1000] Å"),
        ("_cell_angle_beta", "171", "sensible: _cell_angle_beta 171 is not in [10, 170] degrees"),
    ],
)
def test_a_cell_out_of_bounds(text, name, value, fault):
    lines = [f"{name} {value}" if line.startswith(name) else line for line in text.splitlines()]
    assert printed_checks.cell_faults(block.read("\n".join(lines))) == [fault]


def test_formulas_that_differ(text):
    (fault,) = printed_checks.formula_faults(block.read(text.replace("data_Na4Cl4", "data_Na4Cl5")))
    assert fault == "formula: head line Na4Cl5, sum formula NaCl, structural formula NaCl differ"


def test_multiplicities_that_do_not_add_up(text):
    faults = printed_checks.multiplicity_faults(block.read(text.replace("Na4 Cl4", "Na4 Cl8")))
    assert faults == ["multiplicity: the rows of Cl add up to 4, the sum formula has 8"]


@pytest.mark.parametrize(
    ("formula", "reason"), [(None, "has no"), ("", "has no"), ("Na(", "is not a formula")]
)
def test_a_formula_that_cannot_be_read(formula, reason):
    with pytest.raises(CrystallmError, match=reason):
        printed_checks.parse_composition(formula, "sum formula")
