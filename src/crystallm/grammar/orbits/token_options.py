"""Ids of allowed tokens, cached by what decides them.

Equal options are the same object, so callers may cache what they derive from them. A single option is a tuple
of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from math import ceil, floor, log

from crystallm.crystallography import elements, space_groups, wyckoff_assignment
from crystallm.geometry import contacts, distances
from crystallm.grammar import text_length
from crystallm.orbits import description, language, vocabulary


@cache
def alone(token: int) -> tuple[int, ...]:
    """Return one id alone."""
    return (token,)


@cache
def between(first: int, end: int) -> Sequence[int]:
    """Return the ids from first to end, end excluded."""
    return range(first, end) if end - first > 1 else tuple(range(first, end))


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def shifted(first: int, indices: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids at these indices of a family."""
    return tuple(first + index for index in indices)


@cache
def label_ids(number: int) -> tuple[int, ...]:
    """Return the ids of the labels of the Wyckoff positions of a group, by index."""
    return tuple(language.ids(" ".join(w.label for w in space_groups.get(number).wyckoff)))


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def labels(number: int, indices: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids of the labels of some Wyckoff positions of a group."""
    ids = label_ids(number)
    return tuple(ids[i] for i in indices)


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def counts(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids of the first tokens of these counts of an element."""
    family = vocabulary.families()
    ids = {family.number + n if n < 100 else family.hundreds + n // 100 - 1 for n in numbers}
    return tuple(sorted(ids))


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def last_digits(counts: tuple[int, ...], hundreds: int) -> tuple[int, ...]:
    """Return the ids of the last two digits of the counts with these hundreds."""
    first = vocabulary.families().number
    return tuple(first + n - hundreds for n in counts if 0 <= n - hundreds < 100)


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def groups(counts: tuple[int, ...], context: int | None) -> tuple[int, ...]:
    """Return the ids of the groups that can hold these counts (sorted) within the context."""
    return shifted(vocabulary.families().group - 1, text_length.groups_within(counts, context))


@cache
def tens_of(name: str) -> tuple[int, range]:
    """Return the id of the first token of the tens of a cell parameter, and these tens."""
    family, tens = vocabulary.TENS[name]
    return getattr(vocabulary.families(), family), tens


@cache
def tens_between(name: str, low: int, high: int) -> Sequence[int]:
    """Return the ids of the tens of a cell parameter from low to high."""
    first, tens = tens_of(name)
    low, high = max(low, tens[0]), min(high, tens[-1])
    return between(first + low - tens[0], first + high - tens[0] + 1)


@lru_cache(maxsize=10_000)
def volume_steps(composition: tuple[tuple[str, int], ...]) -> range:
    """Return the steps of the volume that known crystals have, within `contacts.VOLUMES` per atom."""
    per_atom = description.volume_of_atoms(composition) / sum(n for _, n in composition)
    (least, most), (low, high) = contacts.VOLUMES, distances.known().volumes
    low, high = max(low, least / per_atom), min(high, most / per_atom)
    return range(ceil(description.SCALE * log(low)), floor(description.SCALE * log(high)) + 1)


@cache
def element_ids() -> dict[str, int]:
    """Return the id of each element."""
    first = vocabulary.families().element
    return {symbol: first + i for i, symbol in enumerate(elements.symbols())}


@cache
def rank() -> dict[str, int]:
    """Return the rank of each element in the order of compositions."""
    return {symbol: i for i, symbol in enumerate(elements.electronegativity_order(elements.symbols()))}
