"""Batches by weight, and batch sizes that follow the pace: small at first, then a few seconds each.

Larger batches are faster, but an interrupted run loses its current batch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

SECONDS = 5.0
"""Intended time of a batch."""
FEWEST = 16
"""Items of the first batch, so that the first results are stored soon."""


class AdaptiveBatchSize:
    """The size of the next batch, from the pace of the last one.

    Args:
        min_n: minimum size, and that of the first batch.
    """

    def __init__(self, max_n: int, min_n: int = FEWEST) -> None:
        self._min, self._max = min(min_n, max_n), max_n
        self.size = self._min
        self._started = time.monotonic()

    def sizes(self) -> Iterator[int]:
        """Yield the current size without end."""
        return (self.size for _ in itertools.repeat(None))

    def done(self, n: int) -> None:
        """Report that a batch of n items is stored, and start the next one."""
        now = time.monotonic()
        rate = n / max(now - self._started, 1e-3)
        self.size = max(self._min, min(self._max, int(rate * SECONDS)))
        self._started = now


Item = TypeVar("Item")


def grouped(
    items: Iterable[Item], weight: Callable[[Item], int], sizes: int | Iterator[int]
) -> Iterator[list[Item]]:
    """Yield groups of items of at least a total weight each; the last may be lighter.

    Items are drawn as needed.

    Args:
        sizes: total weight of each group, or an iterator over those of the groups.
    """
    limits = itertools.repeat(sizes) if isinstance(sizes, int) else sizes
    group: list[Item] = []
    total = 0
    limit = next(limits)
    for item in items:
        group.append(item)
        total += weight(item)
        if total >= limit:
            yield group
            group, total, limit = [], 0, next(limits)
    if group:
        yield group
