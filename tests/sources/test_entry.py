"""Names of files and texts of entries."""

from __future__ import annotations

import pytest

from crystallm.sources import entry


@pytest.mark.parametrize(
    ("name", "kind", "stem"),
    [
        ("a/NaCl.cif", "cif", "a/NaCl"),
        ("NaCl.MCIF.gz", "cif", "NaCl"),
        ("x/POSCAR_1", "poscar", "x/POSCAR_1"),
        ("TiO2.vasp", "poscar", "TiO2"),
        ("CONTCAR", "poscar", "CONTCAR"),
        ("table.csv", "", "table.csv"),
        ("notPOSCAR", "", "notPOSCAR"),
    ],
)
def test_files_of_one_crystal(name, kind, stem):
    assert (entry.single_format(name), entry.stem(name)) == (kind, stem)


def test_a_crystal_that_is_too_large_has_a_reason():
    assert entry.too_large("a", 7_400_000).problem == "the file has 7 MB, more than the 5 MB read"


def test_half_characters_are_replaced():
    assert entry.clean("ä\ud800") == "ä?"
    assert entry.clean(3) == "3"
