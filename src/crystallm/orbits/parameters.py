"""Numbers in texts of the orbits language: where they stand, and a text with one of them changed.

A number is two tokens: the tens and the rest of a cell parameter's steps, or the hundredths and thousandths
of a coordinate. Steps are those of `orbits`; of coordinates (a thousandth of an edge, 0.005 Å or so) it takes
several to move an atom as far as one step of the volume moves the edge. Refuses to know rules and networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.orbits import description, vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence


COORDINATE = 4.0
"""Steps of a coordinate for one of a cell parameter."""


def places(ids: Sequence[int]) -> list[int]:
    """Where numbers begin in a text."""
    family = vocabulary.families()
    return [
        place
        for place, token in enumerate(ids[:-1])
        if family.volume <= token < family.rest or family.coarse <= token < family.fine
    ]


def moved(ids: Sequence[int], steps: Sequence[int]) -> tuple[int, ...] | None:
    """A text with each of its numbers so many steps higher; None where one cannot be told."""
    found: tuple[int, ...] | None = tuple(ids)
    for place, step in zip(places(ids), steps, strict=True):
        if step and found is not None:
            found = _stepped(found, place, step)
    return found


def apart(ids: Sequence[int], other: Sequence[int]) -> list[int]:
    """Steps from each number of a text to that of another one that differs in nothing else."""
    coarse, half = vocabulary.families().coarse, description.STEPS // 2
    found = []
    for place in places(ids):
        gap = value(other, place) - value(ids, place)
        found.append(
            (gap + half) % description.STEPS - half if ids[place] >= coarse else gap
        )  # the short way round
    return found


def units(ids: Sequence[int]) -> list[float]:
    """For each number of a text the steps that count as much as one step of a cell parameter."""
    coarse = vocabulary.families().coarse
    return [COORDINATE if ids[place] >= coarse else 1.0 for place in places(ids)]


def value(ids: Sequence[int], place: int) -> int:
    """The number that begins at a place, from the first of its family on."""
    family = vocabulary.families()
    coordinate = ids[place] >= family.coarse
    first, rest = (family.coarse, family.fine) if coordinate else (family.volume, family.rest)
    return 10 * (ids[place] - first) + ids[place + 1] - rest


def changed(ids: Sequence[int], place: int, length: float) -> tuple[int, ...] | None:
    """A text with a number changed.

    Args:
        ids: of the text.
        place: where the number begins.
        length: of the change, steps of a cell parameter; a whole step at least is taken.

    Returns:
        The text; None where the number cannot be told.
    """
    length *= COORDINATE if ids[place] >= vocabulary.families().coarse else 1.0
    return _stepped(ids, place, (1 if length >= 0 else -1) * max(1, round(abs(length))))


def _stepped(ids: Sequence[int], place: int, step: int) -> tuple[int, ...] | None:
    """A text with a number so many steps higher."""
    family = vocabulary.families()
    coordinate = ids[place] >= family.coarse
    first, rest = (family.coarse, family.fine) if coordinate else (family.volume, family.rest)
    total = value(ids, place) + step
    tens, last = divmod(total % description.STEPS if coordinate else total, 10)
    bounds = (family.volume, family.ratio_b, family.ratio_c, family.angle, family.rest)
    token = first + tens
    if not coordinate:
        own = max(k for k in range(4) if bounds[k] <= ids[place])  # families of the cell stand side by side
        if not bounds[own] <= token < bounds[own + 1]:
            return None
    return (*ids[:place], token, rest + last, *ids[place + 2 :])
