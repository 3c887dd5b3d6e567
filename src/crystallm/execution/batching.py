"""How much is done together, before it is kept: little at first, then as much as takes a few seconds.

What is done together is done faster, and lost together where a run is interrupted. Knows a clock and numbers;
refuses to know what they count.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


SECONDS = 5.0
"""What a portion is to take."""

FEWEST = 16
"""Crystals of the first portion, so that something is kept soon."""


class AdaptiveBatchSize:
    """The size of the next portion, after the pace of the last one.

    Args:
        most: of one portion.
        least: of one portion, the first one among them.

    Attributes:
        size: what to do next together, at least; whoever cannot part it finely takes more.
    """

    def __init__(self, most: int, least: int = FEWEST) -> None:
        self._least, self._most = min(least, most), most
        self.size = self._least
        self._begun = time.monotonic()

    def sizes(self) -> Iterator[int]:
        """The sizes of one portion after the other, each as it is when it is drawn."""
        return (self.size for _ in itertools.repeat(None))

    def done(self, n: int) -> None:
        """Note that a portion of so many is done and kept, and that the next one begins."""
        now = time.monotonic()
        rate = n / max(now - self._begun, 1e-3)
        self.size = max(self._least, min(self._most, int(rate * SECONDS)))
        self._begun = now


Item = TypeVar("Item")


def grouped(
    items: Iterable[Item], weight: Callable[[Item], int], sizes: int | Iterator[int]
) -> Iterator[list[Item]]:
    """Items in groups whose weights add up to a size at least; the last may be lighter. Drawn as needed.

    Args:
        items: in their order.
        weight: of one.
        sizes: of all groups, or of one after the other, drawn when a group begins.
    """
    wanted = itertools.repeat(sizes) if isinstance(sizes, int) else sizes
    group: list[Item] = []
    held = 0
    size = next(wanted)
    for item in items:
        group.append(item)
        held += weight(item)
        if held >= size:
            yield group
            group, held, size = [], 0, next(wanted)
    if group:
        yield group
