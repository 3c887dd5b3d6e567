"""The numbers in a token sequence of the orbits language: read, shift and compare them.

A number is two tokens: the tens and the rest of the steps of a cell parameter, or the hundredths and
thousandths of a coordinate. It takes several steps of a coordinate (a thousandth of an edge, about 0.005 Å)
to move an atom as far as one step of the volume moves the edge.
"""

from __future__ import annotations

from collections.abc import Sequence

from crystallm.orbits import description, vocabulary

COORDINATE = 4.0
"""Steps of a coordinate for one of a cell parameter."""


def positions(ids: Sequence[int]) -> list[int]:
    """Return the positions of the numbers in a sequence."""
    family = vocabulary.families()
    return [
        position
        for position, token in enumerate(ids[:-1])
        if family.volume <= token < family.rest or family.coarse <= token < family.fine
    ]


def shifted(ids: Sequence[int], steps: Sequence[int]) -> tuple[int, ...] | None:
    """Return a sequence with its numbers shifted by these steps; None if one has no token."""
    result: tuple[int, ...] | None = tuple(ids)
    for position, step in zip(positions(ids), steps, strict=True):
        if step and result is not None:
            result = _stepped(result, position, step)
    return result


def differences(ids: Sequence[int], others: Sequence[int]) -> list[int]:
    """Return the steps from each number of a sequence to that of another one that differs in nothing else."""
    coarse, half = vocabulary.families().coarse, description.STEPS // 2
    steps = []
    for position in positions(ids):
        gap = value(others, position) - value(ids, position)
        if ids[position] >= coarse:  # a coordinate: the short way round
            gap = (gap + half) % description.STEPS - half
        steps.append(gap)
    return steps


def step_sizes(ids: Sequence[int]) -> list[float]:
    """Return, for each number, the steps that correspond to one step of a cell parameter."""
    coarse = vocabulary.families().coarse
    return [COORDINATE if ids[position] >= coarse else 1.0 for position in positions(ids)]


def value(ids: Sequence[int], position: int) -> int:
    """Return the number at a position, counted from the first of its family."""
    family = vocabulary.families()
    is_coordinate = ids[position] >= family.coarse
    first, rest = (family.coarse, family.fine) if is_coordinate else (family.volume, family.rest)
    return 10 * (ids[position] - first) + ids[position + 1] - rest


def changed(ids: Sequence[int], position: int, length: float) -> tuple[int, ...] | None:
    """Return a sequence with one number changed.

    Args:
        length: of the change in steps of a cell parameter; at least one whole step is taken.

    Returns:
        The sequence; None if the new number has no token.
    """
    length *= COORDINATE if ids[position] >= vocabulary.families().coarse else 1.0
    return _stepped(ids, position, (1 if length >= 0 else -1) * max(1, round(abs(length))))


def _stepped(ids: Sequence[int], position: int, step: int) -> tuple[int, ...] | None:
    """Return a sequence with one number shifted; None if the new number has no token."""
    family = vocabulary.families()
    is_coordinate = ids[position] >= family.coarse
    first, rest = (family.coarse, family.fine) if is_coordinate else (family.volume, family.rest)
    total = value(ids, position) + step
    tens, last = divmod(total % description.STEPS if is_coordinate else total, 10)
    bounds = (family.volume, family.ratio_b, family.ratio_c, family.angle, family.rest)
    token = first + tens
    if not is_coordinate:
        own = max(k for k in range(4) if bounds[k] <= ids[position])  # the families of the cell are adjacent
        if not bounds[own] <= token < bounds[own + 1]:
            return None
    return (*ids[:position], token, rest + last, *ids[position + 2 :])
