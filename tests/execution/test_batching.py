"""How much is done together, by a clock that is set by hand."""

from __future__ import annotations

import itertools

import pytest

from crystallm.execution import batching


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(batching.time, "monotonic", lambda: now[0])
    return now


def test_a_portion_is_what_takes_some_seconds(clock):
    portion = batching.AdaptiveBatchSize(256)
    assert portion.size == batching.FEWEST
    for seconds, n, size in ((0.1, 16, 256), (51, 256, 25), (100, 25, batching.FEWEST), (0, 16, 256)):
        clock[0] += seconds
        portion.done(n)
        assert portion.size == size


def test_the_bounds_of_a_portion_may_meet(clock):
    portion = batching.AdaptiveBatchSize(2)
    assert portion.size == 2
    clock[0] += 0.01
    portion.done(2)
    assert portion.size == 2


def test_groups_follow_the_pace(clock):
    portion = batching.AdaptiveBatchSize(100, 3)

    def items():
        for i in itertools.count():
            clock[0] += 0.5 if i < 20 else 0.1
            yield i

    groups = []
    for group in batching.grouped(items(), lambda _: 1, portion.sizes()):
        groups.append(group)
        portion.done(len(group))
        if len(groups) == 5:
            break
    assert [len(group) for group in groups] == [3, 10, 10, 13, 50]
    assert [i for group in groups for i in group] == list(range(86))
