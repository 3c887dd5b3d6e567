"""Files of awkward kinds, taken from public reports: each is read right, or rejected with its reason."""

from __future__ import annotations

import shutil

import pytest
from pymatgen.core import Structure

import reading_cases
from crystallm.crystallography import formula
from crystallm.errors import CrystallmError, InputError
from crystallm.export import collection as exporting
from crystallm.sources import collection, parsing
from crystallm.validity.collection import check_entries

CASES = reading_cases.cases()


def read(path):
    """The ordered structures of a file, and why others are none."""
    structures, reasons = [], []
    try:
        for entry in collection.read(path):
            try:
                if entry.text is None:
                    reasons.append(entry.problem)
                    continue
                found = parsing.structure(entry.text, entry.format)
                if found.is_ordered:
                    structures.append(found)
                else:
                    reasons.append("disordered")
            except CrystallmError as error:
                reasons.append(str(error))
    except InputError as error:
        reasons.append(str(error))
    return structures, reasons


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_read_right_or_rejected_with_a_reason(name):
    structures, reasons = read(reading_cases.FOLDER / name)
    assert structures or reasons
    assert "\n" not in "".join(reasons)
    assert reading_cases.disagreements(structures, reasons, CASES[name]) == []


def test_exported_files_hold_the_same_crystals(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in CASES:
        if name != "42d_molecule.json":  # no collection at all
            shutil.copy(reading_cases.FOLDER / name, folder)
    exported = exporting.export(folder, "poscar", tmp_path / "out")
    found = {}
    for path in exported.path.iterdir():
        found.setdefault(path.name.partition("_")[0], []).append(Structure.from_file(path))
    for name, rows in CASES.items():
        assert reading_cases.disagreements(found.get(name.partition("_")[0], []), [], rows) == [], name
    assert all(reason for _, reason in exported.skipped)
    assert any("is read as oxygen" in note for _, note in exported.notes)


def test_evaluation_notes_how_a_crystal_was_read_and_says_why_others_are_not():
    names = (
        "60n_OH_type.cif",
        "25h_mixed_no_occ.cif",
        "40f_no_symbol_line_title.vasp",
        "11c_third_2digits.cif",
    )
    entries = [
        entry
        for name in names
        for entry in map(collection.as_cif, collection.read(reading_cases.FOLDER / name))
    ]
    hydroxide, shared, titled, magnesium = check_entries(entries)
    assert "OH is read as oxygen" in hydroxide["note"]
    assert not shared["readable"]
    assert "share one place" in shared["reasons"]
    assert "named by the title" in titled["note"]
    assert (magnesium["found_group"], magnesium["n_atoms"]) == ("P6_3/mmc", 2)


@pytest.mark.parametrize("row", reading_cases.formulas(), ids=lambda row: row["text"])
def test_a_formula_is_read_right_or_rejected(row):
    try:
        found = dict(formula.cell(row["text"]).composition)
    except CrystallmError:
        found = None
    right = [] if row["outcome"] == "refused" else [formula.parse(row["cell_composition"])]
    assert found in (right if row["outcome"] == "read" else [*right, None])
