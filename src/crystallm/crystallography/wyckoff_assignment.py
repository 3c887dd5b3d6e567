"""Which space groups and Wyckoff positions can hold given numbers of atoms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import chain, product
from typing import Any

from crystallm.crystallography import space_groups

KEPT = 1 << 16
"""Cached answers about counts, so that a million compositions do not fill the memory."""


@cache
def position_counts(number: int) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return multiplicities of positions with free coordinates; (multiplicity, number) of the others."""
    group = space_groups.get(number)
    free = tuple(sorted({w.multiplicity for w in group.wyckoff if w.free}))
    fixed = Counter(w.multiplicity for w in group.wyckoff if not w.free)
    return free, tuple(sorted(fixed.items()))


@lru_cache(maxsize=KEPT)
def is_sum(count: int, parts: tuple[int, ...]) -> bool:
    """Return whether a count is a sum of parts, each used any number of times."""
    reach, within = 1, (2 << count) - 1  # bit n: n is a sum
    for part in parts:
        shift = part
        while shift <= count:  # 1 more, 2 more, 4 more of the part
            reach |= reach << shift & within
            shift *= 2
    return bool(reach >> count & 1)


def uses(count: int, fixed: tuple[tuple[int, int], ...]) -> Iterable[tuple[int, ...]]:
    """Yield numbers of orbits of each fixed multiplicity that a count may take, largest first."""
    return product(*(range(min(n, count // m), -1, -1) for m, n in fixed))


@lru_cache(maxsize=KEPT)
def fits(free: tuple[int, ...], fixed: tuple[tuple[int, int], ...], counts: tuple[int, ...]) -> bool:
    """Return whether counts (sorted, one per element) can be filled together."""
    if all(is_sum(count, free) for count in counts):
        return True  # with no counts at all, too
    parts = (*free, *(m for m, _ in fixed))
    if not all(is_sum(count, parts) for count in counts):
        return False
    count, rest = counts[-1], counts[:-1]
    for used in uses(count, fixed):
        left = count - sum(u * m for u, (m, _) in zip(used, fixed, strict=True))
        if left < 0 or not is_sum(left, free):
            continue
        remaining = tuple((m, n - u) for u, (m, n) in zip(used, fixed, strict=True))
        if fits(free, remaining, rest):
            return True
    return False


def can_hold(number: int, counts: Iterable[int]) -> bool:
    """Return whether a space group can hold a cell with these counts of its elements."""
    free, fixed = position_counts(number)
    return fits(free, fixed, tuple(sorted(counts)))


@lru_cache(maxsize=KEPT)
def groups_for(counts: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of the space groups that can hold a cell with these counts (sorted)."""
    holding = (numbers for kind, numbers in _groups_by_positions().items() if fits(*kind, counts))
    return tuple(sorted(chain.from_iterable(holding)))


@cache
def _groups_by_positions() -> dict[tuple[Any, Any], tuple[int, ...]]:
    """Return the numbers of the space groups by `position_counts`."""
    groups: dict[tuple[Any, Any], tuple[int, ...]] = {}
    for number in range(1, 231):
        kind = position_counts(number)
        groups[kind] = (*groups.get(kind, ()), number)
    return groups


@lru_cache(maxsize=KEPT)
def _can_finish(number: int, taken: frozenset[int], first: int, left: int, later: tuple[int, ...]) -> bool:
    """Return whether positions are left for the atoms of the current element and of later ones.

    Args:
        first: smallest Wyckoff index that the current element may still take (orbits stand in order).
        left: atoms of the current element still to place.
        later: counts of the elements after it, sorted.
    """
    all_free, _ = position_counts(number)
    free, fixed, total = _supply(number, taken, first)
    for used in uses(left, fixed):
        rest = left - sum(u * m for u, (m, _) in zip(used, fixed, strict=True))
        if rest < 0 or not is_sum(rest, free):
            continue
        if not later:
            return True
        spent = {m: u for u, (m, _) in zip(used, fixed, strict=True)}
        if fits(all_free, tuple((m, n - spent.get(m, 0)) for m, n in total), later):
            return True
    return False


@lru_cache(maxsize=KEPT)
def _supply(
    number: int, taken: frozenset[int], first: int
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Return the open positions: multiplicities of those with free coordinates, and numbers of those without.

    Both from the index `first` on; the third is like the second, from index 0 on. See `_can_finish`.
    """
    wyckoff = space_groups.get(number).wyckoff
    free = tuple(sorted({w.multiplicity for w in wyckoff[first:] if w.free}))
    open_fixed = [(i, w.multiplicity) for i, w in enumerate(wyckoff) if not w.free and i not in taken]
    fixed = Counter(m for i, m in open_fixed if i >= first)
    return free, tuple(sorted(fixed.items())), tuple(sorted(Counter(m for _, m in open_fixed).items()))


@lru_cache(maxsize=KEPT)
def labels_allowed(
    number: int, taken: frozenset[int], first: int, left: int, later: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the indices of the Wyckoff positions that the next orbit may take; see `_can_finish`."""
    indices = []
    for index, position in enumerate(space_groups.get(number).wyckoff):
        if index < first or position.multiplicity > left or index in taken:
            continue
        now_taken = taken if position.free else taken | {index}
        if _can_finish(number, now_taken, index, left - position.multiplicity, later):
            indices.append(index)
    return tuple(indices)
