"""Numbers in texts of the orbits language: where they stand, and a text with one of them changed.

A number is two tokens: the tens and the rest of a cell parameter's steps, or the hundredths and thousandths
of a coordinate. Steps are those of `orbits`; of coordinates (a thousandth of an edge, 0.005 Å or so) it takes
several to move an atom as far as one step of the volume moves the edge. Refuses to know rules and networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm import orbits

if TYPE_CHECKING:
    from collections.abc import Sequence

COORDINATE = 4.0
"""Steps of a coordinate for one of a cell parameter."""


def places(ids: Sequence[int]) -> list[int]:
    """Where numbers begin in a text."""
    family = orbits.families()
    return [
        place
        for place, token in enumerate(ids[:-1])
        if family.volume <= token < family.rest or family.coarse <= token < family.fine
    ]


def changed(ids: Sequence[int], place: int, length: float) -> tuple[int, ...] | None:
    """A text with a number changed.

    Args:
        ids: of the text.
        place: where the number begins.
        length: of the change, steps of a cell parameter; a whole step at least is taken.

    Returns:
        The text; None where the number cannot be told.
    """
    family = orbits.families()
    coordinate = ids[place] >= family.coarse
    length *= COORDINATE if coordinate else 1.0
    step = (1 if length >= 0 else -1) * max(1, round(abs(length)))
    first = family.coarse if coordinate else family.volume
    rest = family.fine if coordinate else family.rest
    value = 10 * (ids[place] - first) + ids[place + 1] - rest + step
    tens, last = divmod(value % orbits.STEPS if coordinate else value, 10)
    bounds = (family.volume, family.ratio_b, family.ratio_c, family.angle, family.rest)
    token = first + tens
    if not coordinate:
        own = max(k for k in range(4) if bounds[k] <= ids[place])  # families of the cell stand side by side
        if not bounds[own] <= token < bounds[own + 1]:
            return None
    return (*ids[:place], token, rest + last, *ids[place + 2 :])
