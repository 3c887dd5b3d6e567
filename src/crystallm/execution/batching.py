"""How much is done together, before it is kept: little at first, then as much as takes a few seconds.

What is done together is done faster, and lost together where a run is interrupted. Knows a clock and numbers;
refuses to know what they count.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


SECONDS = 5.0
"""What a portion is to take."""

FEWEST = 16
"""Crystals of the first portion, so that something is kept soon."""


class Portion:
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
