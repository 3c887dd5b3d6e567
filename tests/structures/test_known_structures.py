"""Known structures by formula."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import real_crystals
from crystallm.errors import CrystallmError
from crystallm.execution.pool import Inline
from crystallm.structures import comparison, known_structures
from crystallm.structures.duplicates import ComparisonRunner

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
    runner = ComparisonRunner(Inline(), on_done=lambda _, n, __: seen.append(n))
    found = known_structures.index(known, wanted, runner)
    assert found.n_rows == 1040
    assert seen == [*range(100, 1001, 100), 1040]
    assert found.rows.keys() == wanted
    (formula,) = wanted
    assert [identifier for identifier, _ in found.rows[formula]][:2] == ["3", "23"]
    assert found.text(formula, 1) == cif(some[3])


def test_a_formula_is_that_of_the_atoms_and_never_the_printed_one(some) -> None:
    text = cif(some[0])
    printed = re.sub("_chemical_formula_sum .*", "_chemical_formula_sum 'Na1 Cl1'", text)
    with pytest.raises(CrystallmError, match="contradict"):
        known_structures.formula_in(printed)


def test_a_formula_that_is_not_printed_is_that_of_the_structure(some) -> None:
    text = cif(some[0])
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("_chemical_formula"))
    assert known_structures.formula_in(bare) == known_structures.formula_in(text)
    for structure in real_crystals.structures()[:100]:
        assert known_structures.formula_in(cif(structure)) == comparison.formula_of(
            structure.composition.get_el_amt_dict()
        )
