"""Lattice vectors and volumes of cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice

from crystallm.crystallography import cells

lengths = st.floats(1.0, 50.0)
angles = st.floats(65.0, 115.0)  # any three of these make a cell


@given(st.tuples(lengths, lengths, lengths, angles, angles, angles))
def test_vectors_and_volumes_agree_with_pymatgen(parameters):
    theirs = Lattice.from_parameters(*parameters)
    ours = Lattice(cells.lattice(parameters))
    assert ours.parameters == pytest.approx(theirs.parameters)
    assert cells.volume(parameters) == pytest.approx(theirs.volume)
    factor = cells.squared_volume_factor(parameters[3:])
    assert math.sqrt(factor) * math.prod(parameters[:3]) == pytest.approx(theirs.volume)
    assert np.array_equal(cells.pymatgen_vectors(parameters), theirs.matrix)
    assert not cells.impossible(parameters)


def test_angles_that_close_no_cell():
    flat = (4.0, 4.0, 4.0, 150.0, 60.0, 60.0)
    assert cells.volume(flat) == 0.0
    assert cells.squared_volume_factor(flat[3:]) < 0
    assert np.isnan(cells.lattice(flat)).any()
    assert cells.impossible(flat)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_lengths_that_make_no_cell(wrong):
    assert cells.impossible((4.0, wrong, 4.0, 90.0, 90.0, 90.0))


def test_cells_that_pymatgen_rejects():
    assert cells.pymatgen_vectors((4.0, -4.0, 4.0, 90.0, 90.0, 90.0)) is None
    assert cells.pymatgen_vectors((0.005, 4.0, 4.0, 90.0, 90.0, 90.0)) is None
