"""Rows of atoms: the errors are those of tests/cif/test_structure_reader.py, which reads whole CIFs."""

from __future__ import annotations

import pytest

from crystallm.cif import items, site_rows
from crystallm.errors import TextError


def rows(*lines, columns=("label", "fract_x", "fract_y", "fract_z")):
    loop = "\n".join(["data_x", "loop_", *(f"_atom_site_{name}" for name in columns), *lines])
    notes = []
    return site_rows.read_sites(items.crystal(loop), {"Ca": 1, "C": 1}, notes), notes


def test_labels_name_elements_where_types_are_missing():
    (one, two), notes = rows("CA1 0.25 0.333(2) 0", "C2 0.12345678 0.5 1")
    assert (one.symbol, two.symbol) == ("Ca", "C")
    assert notes == []
    assert one.units == pytest.approx([1e-4, 0.002, 1e-4])
    assert two.units == pytest.approx([1e-4, 1e-4, 1e-4])
    assert one.occupancy == 1


def test_a_coordinate_that_is_missing_is_named():
    with pytest.raises(TextError, match="coordinate y of C2 is missing"):
        rows("C2 0 ? 0")
    with pytest.raises(TextError, match="no three fractional coordinates"):
        rows("C2 0 0", columns=("label", "fract_x", "fract_y"))
