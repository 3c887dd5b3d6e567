"""Prefetched items: order, errors, end of the thread."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from crystallm.training import prefetch


def test_items_come_in_their_order_and_errors_through():
    def items():
        yield from range(5)
        raise ValueError("no more")

    found = []
    with pytest.raises(ValueError, match="no more"), prefetch.prefetched(items()) as ready:
        found.extend(ready)
    assert found == [0, 1, 2, 3, 4]
    with prefetch.prefetched(iter([1, 2])) as ready:
        assert list(ready) == [1, 2]


def test_no_thread_outlives_a_block_that_ends_early():
    def items():
        for k in itertools.count(1):
            yield k
            time.sleep(0.05)  # as a batch that takes its time, in which the block ends

    with prefetch.prefetched(items()) as ready:
        assert next(ready) == 1
    assert "batches" not in {thread.name for thread in threading.enumerate()}
