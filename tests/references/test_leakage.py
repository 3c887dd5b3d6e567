"""The entries of a benchmark are refused, or left out."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.references.leakage import BenchmarkEntries, library_for, without_entries
from crystallm.references.options import ReferenceOptions
from known_crystals import library, with_elements

ENTRIES = BenchmarkEntries(frozenset({"rutile-TiO"}), frozenset({("NaCl", 225), ("ZnS", 216)}))


def test_a_library_that_holds_an_entry_is_refused() -> None:
    with pytest.raises(InputError, match=r"holds 2 crystals of the test, such as .*--leave-out"):
        without_entries(library(), ENTRIES, "refuse")
    others = BenchmarkEntries(frozenset({"other"}), frozenset({("ZnS", 216)}))
    assert without_entries(library(), others, "refuse")[1] == 0


@pytest.mark.parametrize(
    ("rule", "formulas"),
    [
        ("nothing", set()),
        ("id", {"TiO2"}),
        ("formula-group", {"TiO2", "NaCl"}),
        ("formula", {"TiO2", "NaCl", "ZnS"}),
    ],
)
def test_what_is_left_out(rule, formulas) -> None:
    allowed, n = without_entries(library(), ENTRIES, rule)
    known = {library().formula(row) for row in range(len(library()))}
    assert {allowed.formula(row) for row in range(len(allowed))} == known - formulas
    assert n == len(formulas)


def test_the_entries_of_a_benchmark_are_left_out(tmp_path) -> None:
    library().write(tmp_path / "l.parquet")
    known = ReferenceOptions(crystals_from="references", references=(tmp_path / "l.parquet",))
    entries = [
        ("rutile-TiO", with_elements("rutile", ("Ti", "O"))),
        ("other", with_elements("rocksalt", ("K", "Cl"))),
    ]
    with pytest.raises(InputError, match=r"holds 2 crystals of the test"):
        library_for(entries, known, "refuse")
    allowed, facts = library_for(entries, known, "formula-group")
    assert len(allowed) == len(library()) - 2
    assert facts["known"] == f"{len(allowed)} known crystals, 2 left out by formula-group"
    assert library_for(entries, known, "id")[1]["left_out"] == 1
