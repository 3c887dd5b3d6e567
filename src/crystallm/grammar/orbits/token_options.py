"""Ids of the tokens that may come next in a text of the orbits language, by what decides it.

Options are the same object wherever they are the same, so that whoever reads them may keep what comes of
them. An only one is a tuple of one.

Knows tokens and groups; refuses to know where a text stands.
"""

from __future__ import annotations

from functools import cache, lru_cache
from math import ceil, floor, log
from typing import TYPE_CHECKING

from crystallm.crystallography import elements, space_groups, wyckoff_assignment
from crystallm.geometry import contacts
from crystallm.grammar import text_length
from crystallm.orbits import description, language, vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence


@cache
def alone(token: int) -> tuple[int, ...]:
    """One id and no other."""
    return (token,)


@cache
def between(first: int, behind: int) -> Sequence[int]:
    """Ids from the first to the last before `behind`."""
    return range(first, behind) if behind - first > 1 else tuple(range(first, behind))


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def shifted(first: int, places: tuple[int, ...]) -> tuple[int, ...]:
    """Ids at places of a family."""
    return tuple(first + place for place in places)


@cache
def label_ids(number: int) -> tuple[int, ...]:
    """Ids of the labels of a group's Wyckoff positions, by index."""
    return tuple(language.ids(" ".join(w.label for w in space_groups.get(number).wyckoff)))


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def labels(number: int, indices: tuple[int, ...]) -> tuple[int, ...]:
    """Ids of the labels of some of a group's Wyckoff positions."""
    ids = label_ids(number)
    return tuple(ids[i] for i in indices)


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def counts(able: tuple[int, ...]) -> tuple[int, ...]:
    """Ids of the first tokens of these counts of an element."""
    family = vocabulary.families()
    found = {family.number + n if n < 100 else family.hundreds + n // 100 - 1 for n in able}
    return tuple(sorted(found))


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def last_digits(counts: tuple[int, ...], hundreds: int) -> tuple[int, ...]:
    """Return the ids of the last two digits of the counts with these hundreds."""
    first = vocabulary.families().number
    return tuple(first + n - hundreds for n in counts if 0 <= n - hundreds < 100)


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def groups(counts: tuple[int, ...], context: int | None) -> tuple[int, ...]:
    """Ids of the groups that can hold these counts (sorted) within the context."""
    return shifted(vocabulary.families().group - 1, text_length.groups_within(counts, context))


@cache
def tens_of(name: str) -> tuple[int, range]:
    """Id of the first token of a cell parameter's tens, and which tens there are."""
    family, written = vocabulary.TENS[name]
    return getattr(vocabulary.families(), family), written


@cache
def tens_between(name: str, low: int, high: int) -> Sequence[int]:
    """Ids of the tens of a cell parameter from low to high."""
    first, written = tens_of(name)
    low, high = max(low, written[0]), min(high, written[-1])
    return between(first + low - written[0], first + high - written[0] + 1)


@lru_cache(maxsize=10_000)
def volume_steps(composition: tuple[tuple[str, int], ...]) -> range:
    """Steps of the volume that keep the volume per atom within `contacts.VOLUMES`."""
    per_atom = description.volume_of_atoms(composition) / sum(n for _, n in composition)
    low, high = (description.SCALE * log(volume / per_atom) for volume in contacts.VOLUMES)
    return range(ceil(low), floor(high) + 1)


@cache
def element_ids() -> dict[str, int]:
    """Id of each element."""
    first = vocabulary.families().element
    return {symbol: first + i for i, symbol in enumerate(elements.symbols())}


@cache
def rank() -> dict[str, int]:
    """Place of each element in the order of compositions."""
    return {symbol: i for i, symbol in enumerate(elements.electronegativity_order(elements.symbols()))}
