"""Known structures by formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import real_crystals
from crystallm.structures import comparison, known_structures

if TYPE_CHECKING:
    from pymatgen.core import Structure


def cif(structure: Structure) -> str:
    return str(structure.to(fmt="cif"))


@pytest.fixture(scope="module")
def some() -> list[Structure]:
    """20 real crystals, no two of one formula."""
    by_formula = {s.composition.reduced_formula: s for s in real_crystals.structures() if len(s) <= 12}
    return list(by_formula.values())[:20]


def test_only_known_crystals_of_a_generated_formula_are_kept(some) -> None:
    seen: list[int] = []
    known = ((str(i), cif(some[i % 20])) for i in range(1040))
    wanted = {comparison.formula_of(some[3].composition.get_el_amt_dict())}
    found = known_structures.index(known, wanted, on_row=seen.append)
    assert found.n_rows == 1040
    assert seen == [1000]
    assert found.rows.keys() == wanted
    (formula,) = wanted
    assert [identifier for identifier, _ in found.rows[formula]][:2] == ["3", "23"]
    assert found.text(formula, 1) == cif(some[3])


@pytest.mark.parametrize(
    ("line", "formula"),
    [
        ("'Na4 Cl4'", "Cl1Na1"),
        ('"Ba Ti O3"', "Ba1O3Ti1"),
        ("SiO2", "O2Si1"),
        ("Na2 Cl2 # two", None),
        ("'Na0.5 K0.5 Cl1'", "Cl1K0.5Na0.5"),
        ("'C H4 O H2'", "C1H6O1"),
        ("?", None),
    ],
)
def test_formulas_are_read_off_the_text(line: str, formula: str | None) -> None:
    assert (
        known_structures.formula_in(f"data_x\n_chemical_formula_sum   {line}\n_cell_length_a 3\n") == formula
    )


def test_a_formula_that_is_not_printed_is_that_of_the_structure(some) -> None:
    text = cif(some[0])
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("_chemical_formula"))
    assert known_structures.formula_in(bare) == known_structures.formula_in(text)
    for structure in real_crystals.structures()[:100]:
        assert known_structures.formula_in(cif(structure)) == comparison.formula_of(
            structure.composition.get_el_amt_dict()
        )
