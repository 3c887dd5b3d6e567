"""Tokens of the orbits language and their families."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from crystallm.crystallography import elements, space_groups
from crystallm.orbits.description import MAX_COUNT

ANGLES = range(10, 171)  # whole degrees, as `validity` accepts
TENS = {
    "a": ("volume", range(-90, 91)),  # tens of steps: 0.011 to 94 times the volume of the atoms
    "b": ("ratio_b", range(-75, 76)),  # 0.024 to 44
    "c": ("ratio_c", range(-75, 76)),
    "alpha": ("angle", ANGLES),
    "beta": ("angle", ANGLES),
    "gamma": ("angle", ANGLES),
}
"""The family of the first token of each cell parameter, and the tens that it encodes."""

PARAMETER_NAMES = {"a": "cell volume", "b": "cell ratio b/a", "c": "cell ratio c/a"}
"""Names of cell parameters in messages; angles have their own."""


class Families(NamedTuple):
    """First id of each family of tokens; a family ends where the next begins."""

    start: int
    end: int
    element: int
    hundreds: int
    number: int
    group: int
    label: int
    volume: int
    ratio_b: int
    ratio_c: int
    angle: int
    rest: int
    coarse: int
    fine: int
    size: int


@cache
def wyckoff_labels() -> tuple[str, ...]:
    """Return the labels of all Wyckoff positions, by multiplicity and letter."""
    return tuple(
        sorted(
            space_groups.wyckoff_labels(), key=lambda label: (int(label[:-1]), label[-1] == "A", label[-1])
        )
    )


@cache
def vocabulary() -> tuple[str, ...]:
    """Return all tokens, in the order of their ids."""
    return tuple(itertools.chain.from_iterable(_family_tokens()))


def _family_tokens() -> Iterator[Sequence[str]]:
    yield ("<crystal>",)
    yield ("<end>",)
    yield elements.symbols()
    yield [f"+{100 * i}" for i in range(1, MAX_COUNT // 100 + 1)]
    yield [str(i) for i in range(100)]
    yield [f"({symbol})" for symbol in space_groups.symbols()]
    yield wyckoff_labels()
    for sign, name in zip("Vbc", "abc", strict=True):
        yield [f"{sign}{i}" for i in TENS[name][1]]
    yield [f"{i}°" for i in ANGLES]
    yield [f".{i}" for i in range(10)]
    yield [f"0.{i:02d}" for i in range(100)]
    yield [f"{i}'" for i in range(10)]


@cache
def families() -> Families:
    """Return the first id of each family of tokens."""
    sizes = [len(tokens) for tokens in _family_tokens()]
    return Families(*itertools.accumulate(sizes, initial=0))


@cache
def token_index() -> dict[str, int]:
    """Return the id of each token."""
    return {token: i for i, token in enumerate(vocabulary())}
