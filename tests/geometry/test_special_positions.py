"""Rounded special positions become exact where their digits allow it."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.cif import symmetry_items
from crystallm.errors import TextError
from crystallm.geometry import special_positions

HEXAGONAL = np.array([[3.2, 0, 0], [-1.6, 3.2 * np.sqrt(3) / 2, 0], [0, 0, 5.2]])


CUBE = np.eye(3) * 5.0


def orbit(symbol, point, unit, vectors=CUBE):
    operators = symmetry_items.of_symbol(symbol)[0].operators
    (found,) = special_positions.orbits(np.array([point]), np.full((1, 3), unit), operators, vectors)
    return found


@pytest.mark.parametrize(("third", "unit"), [("0.33", 1e-2), ("0.333", 1e-3), ("0.3333", 1e-4)])
def test_a_rounded_third_is_a_third(third, unit):
    point = [float(third), 1 - float(third), 0.25]
    found = orbit("P 63/m m c", point, unit, HEXAGONAL)
    np.testing.assert_allclose(sorted(found.points.tolist()), [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    assert found.moved == pytest.approx((1 / 3 - float(third)) * 3.2 * np.sqrt(3), rel=0.01, abs=2e-4)


def test_an_atom_that_the_digits_put_off_a_position_stays_there():
    assert len(orbit("P -1", [0.01, 0, 0], 1e-2).points) == 1
    assert len(orbit("P -1", [0.01, 0, 0], 1e-4).points) == 2  # images 0.1 Å apart
    assert len(orbit("P -1", [0.0009, 0, 0], 1e-4).points) == 1  # 0.009 Å: nearer than atoms are
    assert len(orbit("P -1", [0.05, 0, 0], 5e-2).points) == 2  # 0.5 Å


def test_all_general_and_special_positions_have_their_multiplicity():
    assert [len(orbit("F m -3 m", point, 1e-4).points) for point in ([0, 0, 0], [0.25] * 3, [0.1] * 3)] == [
        4,
        8,
        32,
    ]
    assert len(orbit("F m -3 m", [0.11, 0.23, 0.31], 1e-4).points) == 192


def test_points_near_each_other_are_found_across_the_faces_of_the_cell():
    points = np.array([[0.999, 0, 0], [0.001, 0, 0], [0.5, 0.5, 0.5], [1.001, 1, -1]])
    found = special_positions.coincident(points, np.eye(3) * 10, 0.05)
    assert sorted(tuple(sorted(pair)) for pair in found) == [(0, 1), (0, 3), (1, 3)]


def test_what_is_between_two_positions_is_an_error():
    operators = symmetry_items.of_symbol("P m -3 m")[0].operators
    with pytest.raises(TextError, match="too few digits"):
        special_positions._onto_position(
            np.array([0.13, 0.02, 0.0]), np.arange(48) % 5 == 0, operators, np.eye(3) * 3
        )


def test_few_points_are_compared_as_many_are(monkeypatch):
    points = np.random.default_rng(0).random((special_positions.FEW, 3))
    points[7] = points[3] + [1, -1, 0.01]
    vectors = np.array([[3.0, 0, 0], [1, 4, 0], [-1, 1, 5]])
    found = special_positions.coincident(points, vectors, 0.5)
    assert (3, 7) in found
    monkeypatch.setattr(special_positions, "FEW", 0)
    assert sorted(tuple(sorted(pair)) for pair in special_positions.coincident(points, vectors, 0.5)) == found
