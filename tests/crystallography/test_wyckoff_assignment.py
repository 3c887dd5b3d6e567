"""Which groups and Wyckoff positions hold given numbers of atoms: exact feasibility."""

from __future__ import annotations

import random

import pytest

from crystallm.crystallography import space_groups, wyckoff_assignment


def can_fill(number, counts):
    """Feasibility another way: the set of all that can be placed, position by position."""
    reached = {tuple(0 for _ in counts)}
    for position in space_groups.get(number).wyckoff:
        frontier = reached
        while frontier:
            grown = {
                (*placed[:i], placed[i] + position.multiplicity, *placed[i + 1 :])
                for placed in frontier
                for i in range(len(counts))
                if placed[i] + position.multiplicity <= counts[i]
            }
            frontier = grown - reached if position.free else set()
            reached = reached | grown
    return tuple(counts) in reached


@pytest.mark.parametrize("number", [1, 2, 14, 25, 62, 115, 123, 136, 166, 187, 194, 215, 221, 225, 227, 229])
def test_feasibility_against_brute_force(number):
    rng = random.Random(number)
    for _ in range(40):
        counts = [rng.randint(1, 9) for _ in range(rng.randint(1, 3))]
        assert wyckoff_assignment.can_hold(number, counts) == can_fill(number, counts), counts
