"""Digits of coordinates: what ticks say, in decimal fractions and one point at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest

from crystallm.crystallography import space_groups
from crystallm.grammar.orbits import coordinates
from crystallm.orbits import description


def same(one, other):
    off = one - other
    return bool((np.abs(off - np.rint(off)) < 0.5 / description.STEPS).all())


def images(number, index, values):
    matrices, shifts = space_groups.get(number).orbit_maps[index]
    return matrices @ np.array(values) + shifts


@pytest.mark.parametrize("number", [2, 12, 62, 136, 148, 166, 194, 216, 225, 227, 230])
def test_digits_are_those_of_distinct_points(number):
    rng = random.Random(number)
    for index, position in enumerate(space_groups.get(number).wyckoff):
        n_free = len(position.free)
        for n_known in range(1, n_free + 1):
            # Near special values, where digits matter.
            known = [rng.choice((0, 120, 250, 330, 490, 500, 660, 990)) for _ in range(n_known)]
            rest = space_groups.GENERIC[n_known:n_free]
            expected = []
            for digit in range(10):
                tried = [v / description.STEPS for v in (*known[:-1], known[-1] + digit)]
                first, *others = images(number, index, [*tried, *rest])
                if not any(same(first, other) for other in others):
                    expected.append(digit)
            assert coordinates.keeping(number, index, tuple(known)) == tuple(expected)


@pytest.mark.parametrize("number", [2, 14, 62, 136, 166, 194, 216, 227])
def test_orbits_stay_off_each_other(number):
    rng = random.Random(number)
    found = 0
    for index, position in enumerate(space_groups.get(number).wyckoff):
        if not position.free:
            continue
        other = [rng.randrange(1000) for _ in position.free]
        # An image of the other one that the position's own representative may take: itself, if no more.
        values = [*other[:-1], other[-1] // 10 * 10]
        other_point = images(number, index, [v / description.STEPS for v in other])[0]
        expected = tuple(
            d
            for d in range(10)
            if not any(
                same(image, other_point)
                for image in images(
                    number, index, [v / description.STEPS for v in (*values[:-1], values[-1] + d)]
                )
            )
        )
        apart = coordinates.apart(number, index, values, coordinates.DIGITS, [[1] * len(other), other])
        assert set(apart) <= set(expected)
        assert other[-1] % 10 not in apart
        assert coordinates.apart(number, index, values, coordinates.DIGITS, [other]) == expected
        found += len(expected) < 10
    assert found


@pytest.mark.parametrize("number", [1, 2, 8, 14, 49, 136, 166, 194, 227, 230])
def test_full_tens_are_those_without_a_digit_left(number):
    rng = random.Random(number)
    found = 0
    for index, position in enumerate(space_groups.get(number).wyckoff):
        if not position.free:
            continue
        known = tuple(rng.choice((0, 120, 250, 330, 500, 990)) for _ in position.free[1:])
        if not coordinates.keeping(number, index, (*known, 440)):
            continue  # these are special themselves: no crystal comes here
        others = [(*known, 440 + digit) for digit in range(10)]
        others += [tuple(rng.randrange(1000) for _ in position.free) for _ in range(10)]
        expected = set()
        for ten in range(100):
            kept = coordinates.keeping(number, index, (*known, 10 * ten))
            if not coordinates.apart(number, index, (*known, 10 * ten), kept, others):
                expected.add(ten)
        assert coordinates.full_tens(number, index, known, others) == expected
        found += 44 in expected
    assert found


def test_fewer_orbits_leave_a_digit_in_all_tens():
    """So that nobody need ask; see `places.CROWD`."""
    rng = random.Random(0)
    for number in (2, 12, 47, 49, 123, 139, 166, 194, 221, 225, 227, 230):
        for index, position in enumerate(space_groups.get(number).wyckoff):
            if not position.free:
                continue
            for ten in (0, 12, 24, 25, 33, 49, 50, 66, 75, 99):
                known = tuple(rng.choice((0, 250, 330, 500, 10 * ten)) for _ in position.free[1:])
                if not coordinates.keeping(number, index, (*known, 10 * ten)):
                    continue  # no crystal comes here
                others = [(*known, 10 * ten + digit) for digit in range(coordinates.CROWD - 1)]
                assert ten not in coordinates.full_tens(number, index, known, others)
