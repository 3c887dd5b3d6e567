"""Libraries are written, read, joined and thinned."""

from __future__ import annotations

import numpy as np
import pytest
from pyarrow import parquet

from crystallm.errors import InputError
from crystallm.references.library import Library, reduced
from known_crystals import REPLACED, library, member


def rows(known: Library) -> set[tuple[str, str, object]]:
    return {(known.id(row), known.source(row), known.member(row)) for row in range(len(known))}


def test_a_library_holds_what_was_put_in() -> None:
    assert rows(library()) == {
        (f"{name}-{''.join(symbols)}", "textbook", member(name, symbols))
        for name, several in REPLACED.items()
        for symbols in several
    }
    assert {library().formula(row) for row in range(*library().range_of((1, 2)))} == {"TiO2", "SnO2", "MgF2"}


def test_a_file_gives_the_same_library(tmp_path) -> None:
    library().write(tmp_path / "l.parquet")
    again = Library.read(tmp_path / "l.parquet")
    assert rows(again) == rows(library())
    assert again.numbers_of((1, 1, 3)).tolist() == library().numbers_of((1, 1, 3)).tolist()


def test_crystals_of_some_proportions_stand_together() -> None:
    known = library()
    start, end = known.range_of((1, 1))
    assert end - start == 7
    assert known.numbers_of((1, 1)).shape == (7, 2)
    for row in range(start, end):
        assert known.member(row).prototype.proportions == (1, 1)
    assert known.range_of((2, 7)) == (0, 0)
    assert known.numbers_of((2, 7)).shape == (0, 2)


def test_libraries_are_joined(tmp_path) -> None:
    other = Library.of([("mine", "lab", member("rutile", ("Pb", "O")))])
    both = Library.joined([library(), other])
    assert rows(both) == rows(library()) | rows(other)
    for i, one in enumerate((library(), other)):
        one.write(tmp_path / f"{i}.parquet")
    assert rows(Library.read(tmp_path / "0.parquet", tmp_path / "1.parquet")) == rows(both)


def test_energies_are_kept_with_the_name_of_their_model(tmp_path) -> None:
    known = library()
    energies = np.where(np.arange(len(known)) < 3, np.nan, -1.25).astype(np.float32)
    known.with_energies(energies, "morse").write(tmp_path / "l.parquet")
    again = Library.read(tmp_path / "l.parquet")
    assert again.energy_model == "morse"
    np.testing.assert_array_equal(again.energies, energies)
    left, _ = again.without(ids=[again.id(len(known) - 1)])
    np.testing.assert_array_equal(left.energies, energies[:-1])


def test_energies_of_different_models_do_not_mix() -> None:
    one, other = (Library.of([(name, "lab", member("rutile", (name, "O")))]) for name in ("Pb", "Ge"))
    one = one.with_energies(np.float32([-1]), "morse")
    joined = Library.joined([one, other.with_energies(np.float32([-2]), "chgnet")])
    assert joined.energy_model == "morse"
    assert {joined.id(i): energy for i, energy in enumerate(joined.energies) if np.isfinite(energy)} == {
        "Pb": -1
    }
    assert Library.joined([other, one]).energy_model == "morse"


def test_a_file_without_energies_is_read(tmp_path) -> None:
    library().write(tmp_path / "new.parquet")
    table = parquet.read_table(tmp_path / "new.parquet")
    parquet.write_table(table.drop_columns("energy"), tmp_path / "old.parquet")
    old = Library.read(tmp_path / "old.parquet")
    assert rows(old) == rows(library())
    assert np.isnan(old.energies).all()
    assert old.energy_model is None


def test_rows_in_another_order_are_sorted(tmp_path) -> None:
    library().write(tmp_path / "sorted.parquet")
    table = parquet.read_table(tmp_path / "sorted.parquet")
    parquet.write_table(table.take(np.arange(len(table))[::-1]), tmp_path / "reversed.parquet")
    again = Library.read(tmp_path / "reversed.parquet")
    assert again.prototype_texts == library().prototype_texts
    assert again.codes.tolist() == library().codes.tolist()
    assert rows(again) == rows(library())


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        ({"ids": {"rocksalt-NaCl", "other"}}, {"NaCl"}),
        ({"formula_groups": {("ZnS", 186), ("TiO2", 1)}}, {"ZnS"}),
        ({"formulas": {"C", "SrTiO3"}}, {"C", "SrTiO3"}),
        ({}, set()),
    ],
)
def test_crystals_are_left_out(rule, left_out) -> None:
    known = library()
    others, rows_out = known.without(**rule)
    assert {known.formula(row) for row in rows_out} == left_out
    ids = {known.id(row) for row in range(len(known)) if known.formula(row) not in left_out}
    assert rows(others) == {row for row in rows(known) if row[0] in ids}


def test_formulas_of_some_elements_have_no_others() -> None:
    assert library().formulas_of(("O", "Ti", "Sr")) == ["SrTiO3", "TiO2"]
    assert library().formulas_of(("Xe",)) == []


def test_other_files_are_no_libraries(tmp_path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="is no library"):
        Library.read(tmp_path / "none.parquet")


def test_reduced_formulas_are_those_of_requests() -> None:
    assert reduced({"O": 4, "Na": 4}) == "Na2O2"
    assert reduced({"O": 4, "Ti": 2}) == "TiO2"
