"""Fewest tokens of a cell in the orbits language, and which cells fit the context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import inf

from crystallm.crystallography import space_groups
from crystallm.crystallography.wyckoff_assignment import KEPT, groups_for, uses


def orbit_tokens(free: int) -> int:
    """Return the tokens of an orbit whose position has n free coordinates."""
    return 2 + 2 * free


@lru_cache(maxsize=KEPT)
def _cheapest_sum(count: int, parts: tuple[tuple[int, int], ...]) -> float:
    """Return the least cost of a count as a sum of parts (size, cost), used any number of times; or inf."""
    costs: list[float] = [0.0]
    for total in range(1, count + 1):
        costs.append(min((costs[total - m] + c for m, c in parts if m <= total), default=inf))
    return costs[count]


@lru_cache(maxsize=KEPT)
def _fewest(
    free: tuple[tuple[int, int], ...], fixed: tuple[tuple[int, int], ...], counts: tuple[int, ...]
) -> float:
    """Return the fewest tokens of orbits that fill counts.

    Free positions are (multiplicity, tokens), fixed ones (multiplicity, number).
    """
    if not counts:
        return 0.0
    count, rest = counts[-1], counts[:-1]
    best = inf
    for used in uses(count, fixed):
        left = count - sum(u * m for u, (m, _) in zip(used, fixed, strict=True))
        if left < 0:
            continue
        own = _cheapest_sum(left, free) + orbit_tokens(0) * sum(used)
        if own < best:
            remaining = tuple((m, n - u) for u, (m, n) in zip(used, fixed, strict=True))
            best = min(best, own + _fewest(free, remaining, rest))
    return best


@lru_cache(maxsize=KEPT)
def fewest_tokens(
    number: int, counts: tuple[int, ...], taken: frozenset[int] = frozenset(), first: int = 0, left: int = 0
) -> float:
    """Return the fewest tokens of orbits that fill these counts; inf if none do.

    Args:
        number: space group.
        counts: of elements without an orbit so far, sorted.
        taken: indices of fixed positions in use.
        first: smallest Wyckoff index that the current element may still take (orbits stand in order).
        left: atoms of the current element still to place.
    """
    free: dict[int, int] = {}  # multiplicity -> tokens
    free_here: dict[int, int] = {}
    fixed: Counter[int] = Counter()
    fixed_here: Counter[int] = Counter()
    for index, position in enumerate(space_groups.get(number).wyckoff):
        size, cost = position.multiplicity, orbit_tokens(len(position.free))
        if position.free:
            free[size] = min(cost, free.get(size, cost))
            if index >= first:
                free_here[size] = min(cost, free_here.get(size, cost))
        elif index not in taken:
            fixed[size] += 1
            fixed_here[size] += index >= first
    parts, here = tuple(sorted(free_here.items())), tuple(sorted(fixed_here.items()))
    best = inf
    for used in uses(left, here):
        rest = left - sum(u * m for u, (m, _) in zip(used, here, strict=True))
        if rest < 0:
            continue
        own = _cheapest_sum(rest, parts) + orbit_tokens(0) * sum(used)
        if own < best:
            spent = {m: u for u, (m, _) in zip(used, here, strict=True)}
            others = tuple(sorted((m, n - spent[m]) for m, n in fixed.items()))
            best = min(best, own + _fewest(tuple(sorted(free.items())), others, counts))
    return best


def _frame_tokens(number: int, n_elements: int) -> int:
    """Return the tokens of a sequence that are not of its orbits: composition, group, cell, start and end."""
    return 1 + 3 * n_elements + 1 + 2 * len(space_groups.get(number).free_cell) + 1


def sequence_tokens(number: int, counts: tuple[int, ...]) -> float:
    """Return the fewest tokens of a sequence with these counts (sorted); inf if the group has no room."""
    return _frame_tokens(number, len(counts)) + fewest_tokens(number, counts)


def may_outgrow(counts: Iterable[int], context: int) -> bool:
    """Return whether the longest sequence of a cell with these counts, in any group, exceeds the context."""
    counts = tuple(counts)
    return _frame_tokens(1, len(counts)) + orbit_tokens(3) * sum(counts) > context


def groups_within(counts: tuple[int, ...], context: int | None) -> tuple[int, ...]:
    """Return the numbers of the groups that hold these counts (sorted) in a sequence within the context."""
    groups = groups_for(counts)
    if context is None or not may_outgrow(counts, context):
        return groups
    return tuple(n for n in groups if sequence_tokens(n, counts) <= context)


def fits_context(counts: tuple[int, ...], context: int, number: int | None = None) -> bool:
    """Return whether some sequence with these counts (sorted), in a group or in any, fits the context."""
    if not may_outgrow(counts, context):
        return True
    # The more symmetry, the fewer tokens: try the last groups first.
    groups = reversed(groups_for(counts)) if number is None else (number,)
    return any(sequence_tokens(n, counts) <= context for n in groups)
