"""Crystals are packed whole and once, in an order of their own; folders are whole or not there."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystallm.datasets import packing
from crystallm.datasets.packing import IGNORE, PADDING
from crystallm.datasets.shards import PrefixedSplit, TokenSplit

patient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
lengths = st.lists(st.integers(0, 300), max_size=80)


def make_split(sizes: list[int]) -> TokenSplit:
    """Crystals of these lengths; token number k of them all is k modulo 1000, so each is another text."""
    starts = np.cumsum([0, *sizes], dtype=np.int64)
    stream = (np.arange(starts[-1]) % 1000).astype(np.uint16)
    return TokenSplit(stream, starts, "orbits", 1000)


def crystals_of(batch: packing.Batch) -> list[list[int]]:
    """The crystals that a batch holds, by its segments."""
    return [
        row_ids[row_segments == number].tolist()
        for row_ids, row_segments in zip(batch.ids, batch.segments, strict=True)
        for number in range(row_segments.max() + 1)
    ]


# --- packing ---


@patient
@given(lengths, st.integers(2, 400), st.integers(1, 2000), st.integers(0, 5), st.booleans())
def test_every_crystal_that_fits_stands_whole_and_once_in_an_epoch(sizes, context, tokens, seed, shuffle):
    split = make_split(sizes)
    found = []
    for batch in packing.batches(
        split, batch_tokens=tokens, context=context, seed=seed, epoch=1, shuffle=shuffle
    ):
        rows, window = batch.ids.shape
        assert window <= context
        assert rows == 1 or rows * window <= tokens
        assert batch.n_tokens == sum(map(len, crystals_of(batch)))
        found += crystals_of(batch)
    fitting = [split.crystal(i).tolist() for i in range(len(split)) if 0 < sizes[i] <= context]
    assert sorted(found) == sorted(fitting)


@patient
@given(lengths, st.integers(2, 400), st.integers(1, 2000))
def test_targets_positions_and_segments_are_those_of_each_crystal_alone(sizes, context, tokens):
    for batch in packing.batches(make_split(sizes), batch_tokens=tokens, context=context, seed=0, epoch=0):
        for array in (batch.ids, batch.targets, batch.positions, batch.segments):
            assert array.dtype == np.int64
        for ids, targets, positions, segments in zip(
            batch.ids, batch.targets, batch.positions, batch.segments, strict=True
        ):
            for number in range(segments.max() + 1):
                places = np.flatnonzero(segments == number)
                assert (np.diff(places) == 1).all()  # side by side
                assert positions[places].tolist() == list(range(len(places)))
                assert targets[places[:-1]].tolist() == ids[places[1:]].tolist()
                assert targets[places[-1]] == IGNORE
            padding = segments == PADDING
            assert (targets[padding] == IGNORE).all()
            assert (ids[padding] == 0).all()
            assert not padding[: len(ids) - padding.sum()].any()  # padding comes last


@patient
@given(st.lists(st.integers(1, 64), min_size=1, max_size=400), st.integers(64, 200))
def test_windows_are_full_enough(sizes, window):
    packed = packing.pack(np.array(sizes), np.arange(len(sizes)), window)
    assert all(sum(sizes[i] for i in content) <= window for content in packed)
    assert sorted(i for content in packed for i in content) == list(range(len(sizes)))
    # No two of the windows left open at the end could be one; those closed before were the fullest of 65.
    rest = [sum(sizes[i] for i in content) for content in packed[-packing.OPEN_WINDOWS :]]
    assert sum(total <= window // 2 for total in rest) <= 1


def test_short_crystals_stand_in_short_windows():
    split = make_split([20] * 30 + [100] * 10 + [900])
    widths = {}
    for batch in packing.batches(split, batch_tokens=256, context=1000, seed=0, epoch=0):
        for crystal in crystals_of(batch):
            widths.setdefault(len(crystal), set()).add(batch.ids.shape[1])
    assert widths == {20: {64}, 100: {112}, 900: {1000}}


def order(split: TokenSplit, **where: int) -> list[list[int]]:
    return [batch.ids.tolist() for batch in packing.batches(split, batch_tokens=512, context=300, **where)]


def test_the_order_is_that_of_seed_and_epoch_alone():
    split = make_split(list(range(1, 200)))
    first = order(split, seed=3, epoch=2)
    assert order(split, seed=3, epoch=2) == first
    assert order(split, seed=3, epoch=3) != first
    assert order(split, seed=4, epoch=2) != first


def test_without_shuffling_there_is_one_order():
    split = make_split(list(range(1, 200)))
    assert order(split, seed=0, epoch=0, shuffle=False) == order(split, seed=1, epoch=5, shuffle=False)


def test_nothing_gives_no_batch():
    assert order(make_split([]), seed=0, epoch=0) == []
    assert order(make_split([301, 999]), seed=0, epoch=0) == []


# --- files ---


# --- folders ---


# --- prefixes ---


@patient
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=30))
def test_tokens_that_are_read_have_no_target_and_all_others_keep_theirs(sizes):
    prefixes, crystals = (make_split([pair[k] for pair in sizes]) for k in (0, 1))
    both = PrefixedSplit(prefixes, crystals)
    plan = packing.plan(both.lengths, batch_tokens=200, context=100, rng=None, untaught=both.untaught)
    seen = 0
    for planned in plan:
        batch = planned.fill(both)
        assert planned.n_taught == (batch.targets != IGNORE).sum()
        for row, members in enumerate(planned.crystals):
            start = 0
            for crystal in members:
                n_read, n = sizes[crystal]
                taught = batch.targets[row, start : start + n_read + n]
                assert (taught[:n_read] == IGNORE).all()
                assert taught[n_read:-1].tolist() == crystals.crystal(crystal)[1:].tolist()
                assert taught[-1] == IGNORE
                start += n_read + n
                seen += 1
    assert seen == len(sizes)
