"""Epochs hold what the recipe says, in an order of their own; processes share them out."""

from __future__ import annotations

import re

import numpy as np
import pytest

from crystallm.cif import tokenizer
from crystallm.crystallography import space_groups
from crystallm.datasets import packing
from crystallm.datasets.shards import PrefixedSplit, TokenSplit
from crystallm.errors import InputError
from crystallm.orbits import language as orbits_language
from crystallm.orbits import vocabulary
from crystallm.training import batch_sampler
from crystallm.training.batch_sampler import BatchSampler
from crystallm.training.recipe import Recipe
from real_crystals import published

SMALL = {"max_updates": 1, "context": 100, "batch_tokens": 200}


def split_of(texts, language="orbits", vocab_size=60000):
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return TokenSplit(np.concatenate(texts).astype(np.uint16), starts, language, vocab_size)


def numbered(n: int, seed: int = 0, first: int = 1) -> TokenSplit:
    """Crystals of 1 to 90 tokens; all tokens of a crystal are its number."""
    sizes = np.random.default_rng(seed).integers(1, 90, size=n)
    return split_of([np.full(size, first + i) for i, size in enumerate(sizes)])


def stream(n: int) -> TokenSplit:
    """Crystals of 7 tokens; each token is its place in the stream."""
    return split_of(np.arange(7 * n).reshape(n, 7))


def held(batches, rows=slice(None)):
    """Numbers of the crystals in packed batches of `numbered`."""
    return sorted(
        int(ids[segments == k][0])
        for batch in batches
        for ids, segments in zip(batch.ids[rows], batch.segments[rows], strict=True)
        for k in range(segments.max() + 1)
    )


def batches(found: BatchSampler, epoch: int):
    return [planned.fill(found.source) for planned in found.plan(epoch)]


# --- windows ---


def test_packed_epochs_are_those_of_the_data_set():
    split = numbered(50)
    ours = batches(BatchSampler(Recipe(**SMALL, seed=3), split), 2)
    theirs = list(packing.batches(split, batch_tokens=200, context=100, seed=3, epoch=2))
    assert [batch.ids.tolist() for batch in ours] == [batch.ids.tolist() for batch in theirs]


@pytest.mark.parametrize("windows", ["starts", "random"])
def test_windows_are_pieces_of_the_stream(windows):
    split = stream(100)
    found = batches(BatchSampler(Recipe(**SMALL | {"context": 20}, packing=windows), split), 0)
    ids = np.concatenate([batch.ids for batch in found])
    assert ids.shape == (700 // 20, 20)  # as many windows as the stream holds
    assert all(len(batch.ids) <= 200 // 20 for batch in found)
    for batch in found:
        assert (batch.targets == (batch.ids + 1) % 700).all()  # behind the end comes the beginning
        assert (np.diff(batch.ids) % 700 == 1).all()
        assert (batch.positions == np.arange(20)).all()
        assert batch.segments is None
        assert batch.n_tokens == batch.ids.size
    at_starts = ids[:, 0] % 7 == 0
    assert at_starts.all() if windows == "starts" else not at_starts.all()
    if windows == "starts":
        assert len(set(ids[:, 0])) == 35


@pytest.mark.parametrize("windows", ["packed", "starts", "random"])
@pytest.mark.parametrize(
    "more", [{}, {"replay_share": 0.3}, {"rare_group_exponent": 0.5}], ids=["alone", "mixed", "rare"]
)
def test_the_order_is_that_of_seed_and_epoch_alone(windows, more, monkeypatch):
    if "rare_group_exponent" in more and windows == "random":
        return
    monkeypatch.setattr(batch_sampler, "space_groups", lambda _, crystals: 1 + crystals % 7)
    split, mix = numbered(60), numbered(30, 1, first=500) if "replay_share" in more else None
    recipe = Recipe(**SMALL, packing=windows, seed=1, **more)

    def order(recipe, epoch):
        return [batch.ids.tolist() for batch in batches(BatchSampler(recipe, split, mix), epoch)]

    assert order(recipe, 2) == order(recipe, 2)
    assert order(recipe, 2) != order(recipe, 3)
    assert order(recipe, 2) != order(recipe.model_copy(update={"seed": 2}), 2)


# --- processes ---


@pytest.mark.parametrize("windows", ["packed", "random"])
def test_processes_share_out_the_micro_batches(windows):
    found = BatchSampler(Recipe(**SMALL, packing=windows), numbered(70))
    alone = found.updates(0, 0, size=4, rank=0, n_ranks=1)
    both = [found.updates(0, 0, size=4, rank=rank, n_ranks=2) for rank in range(2)]
    for _ in range(20):  # over several epochs
        whole, *parts = next(alone), *map(next, both)
        assert len({(s.epoch, s.batch, s.n_tokens, s.n_taught, s.attended) for s in (whole, *parts)}) == 1
        for k, (seed, batch) in enumerate(whole.batches):
            its_seed, its_batch = parts[k % 2].batches[k // 2]
            assert (its_seed, its_batch.ids.tolist()) == (seed, batch.ids.tolist())
        assert whole.n_tokens == sum(batch.n_tokens for _, batch in whole.batches)
        assert whole.n_taught == sum((batch.targets != packing.IGNORE).sum() for _, batch in whole.batches)
    assert len({seed for seed, _ in whole.batches}) == 4


def test_a_run_goes_on_from_any_place():
    found = BatchSampler(Recipe(**SMALL), numbered(70))
    steps = found.updates(0, 0, size=3, rank=0, n_ranks=1)
    for _ in range(12):
        before = next(steps)
    after = next(found.updates(before.epoch, before.batch, size=3, rank=0, n_ranks=1))
    expected = next(steps)
    assert [seed for seed, _ in after.batches] == [seed for seed, _ in expected.batches]
    assert [b.ids.tolist() for _, b in after.batches] == [b.ids.tolist() for _, b in expected.batches]


# --- rare groups and older data ---


def test_rare_groups_are_drawn_more_often(monkeypatch):
    groups = np.array([225] * 900 + [62] * 90 + [1] * 10)
    monkeypatch.setattr(batch_sampler, "space_groups", lambda *_: groups)
    split = split_of([np.full(5, 1 + i) for i in range(1000)])
    found = BatchSampler(Recipe(**SMALL, rare_group_exponent=0.5), split)
    raw = np.sqrt(1000 / np.array([900, 90, 10]))
    expected = raw / (raw * [0.9, 0.09, 0.01]).sum()  # draws of a crystal of each group
    counts = np.zeros(1000)
    for epoch in range(40):
        numbers = np.array(held(batches(found, epoch)))
        assert len(numbers) == 1000  # an epoch keeps its size
        once = np.bincount(numbers - 1, minlength=1000)
        for k, place in enumerate((slice(0, 900), slice(900, 990), slice(990, 1000))):
            assert set(once[place]) <= {int(expected[k]), int(expected[k]) + 1}
        counts += once
    for k, place in enumerate((slice(0, 900), slice(900, 990), slice(990, 1000))):
        assert counts[place].mean() / 40 == pytest.approx(expected[k], rel=0.05)


def test_without_weights_each_is_drawn_once():
    numbers = np.arange(57)
    for seed in range(20):
        assert (
            sorted(batch_sampler.draw_by_weight(numbers, np.ones(57), np.random.default_rng(seed)))
            == numbers.tolist()
        )


@pytest.mark.parametrize("windows", ["packed", "starts", "random"])
@pytest.mark.parametrize("n_older", [5, 400])
def test_older_crystals_are_a_share_of_each_epoch(windows, n_older):
    split, mix = numbered(300), numbered(n_older, 1, first=1001)
    found = BatchSampler(Recipe(**SMALL, packing=windows, replay_share=0.25), split, mix)
    if windows == "packed":
        numbers = np.array(held(batches(found, 0)))
        assert sorted(numbers[numbers < 1000]) == list(range(1, 301))
        assert (numbers > 1000).sum() == 100
        counts = np.bincount(numbers[numbers > 1000] - 1001, minlength=n_older)
        assert counts.max() - counts.min() <= 1
    else:
        firsts = np.concatenate([batch.ids[:, 0] for batch in batches(found, 0)])
        assert (firsts > 1000).mean() == pytest.approx(0.25, abs=0.1)
        for batch in batches(found, 0):  # no window holds tokens of both
            assert ((batch.ids > 1000).all(axis=1) | (batch.ids < 1000).all(axis=1)).all()


# --- equivalent descriptions ---

N_TOLD = 3


def told_otherwise(split: TokenSplit, longer: int | None = None) -> TokenSplit:
    """Three others of each crystal of `numbered`, whose tokens are its number + 1000, 2000 or 3000.

    Args:
        split: of at most 999 crystals.
        longer: a crystal whose others have 200 tokens.
    """
    return split_of([
        np.full(200 if i == longer else len(split.crystal(i)), 1000 * way + i + 1)
        for i in range(len(split))
        for way in range(1, N_TOLD + 1)
    ])  # fmt: skip


def with_others(n, n_epochs, share, **fields):
    split = numbered(n)
    length = {"max_updates": None, "max_tokens": n_epochs * len(split.stream), "augmentation_share": share}
    return BatchSampler(Recipe(**SMALL | length | fields), split, None, told_otherwise(split))


def test_a_crystal_is_told_in_any_way_once_an_epoch():
    found, counts = with_others(300, 20, 1.0), np.zeros((300, N_TOLD + 1))
    for epoch in range(20):
        numbers = np.array(held(batches(found, epoch)))
        assert sorted(numbers % 1000) == list(range(1, 301))
        counts[numbers % 1000 - 1, numbers // 1000] += 1
    assert counts.sum(axis=0) == pytest.approx([1500] * 4, abs=5 * np.sqrt(6000 * 3 / 16))
    expected = 20 / 4  # of a crystal in each way
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square == pytest.approx(3 * 300, abs=5 * np.sqrt(2 * 3 * 300))


def test_the_end_of_a_run_tells_crystals_canonically():
    found = with_others(60, 10, 0.75)
    plain = BatchSampler(Recipe(**SMALL), found.split)
    for epoch in range(12):
        ways = np.array(held(batches(found, epoch))) // 1000
        assert ways.any() == (epoch < 8)  # the eighth begins at 0.7 of the run
        if epoch >= 8:
            ours, theirs = batches(found, epoch), batches(plain, epoch)
            assert [batch.ids.tolist() for batch in ours] == [batch.ids.tolist() for batch in theirs]


def test_rare_groups_are_drawn_more_often_in_all_their_ways(monkeypatch):
    monkeypatch.setattr(batch_sampler, "space_groups", lambda *_: np.array([225] * 90 + [1] * 10))
    found = with_others(100, 10, 1.0, rare_group_exponent=0.5)
    numbers = np.concatenate([held(batches(found, epoch)) for epoch in range(10)])
    assert len(numbers) == 1000
    assert set(numbers[numbers % 1000 > 90] // 1000) == {0, 1, 2, 3}
    assert (numbers % 1000 > 90).mean() == pytest.approx(0.25, abs=0.02)  # 10 sqrt(9) of 120


def test_a_description_that_is_too_long_is_left_out():
    found = with_others(60, 20, 1.0)
    found = BatchSampler(found.recipe, found.split, None, told_otherwise(found.split, longer=4))
    numbers = np.concatenate([held(batches(found, epoch)) for epoch in range(20)])
    assert set(numbers[numbers % 1000 == 5]) == {5}
    assert (numbers % 1000 == 6).sum() == 20


def test_a_run_with_equivalents_goes_on_from_any_place():
    found = with_others(70, 4, 0.5)
    steps = found.updates(0, 0, size=3, rank=0, n_ranks=1)
    places = [next(steps) for _ in range(60)]
    assert places[-1].epoch > 3
    for number in (5, 25, 40):
        after = found.updates(places[number].epoch, places[number].batch, size=3, rank=0, n_ranks=1)
        for expected, step in zip(places[number + 1 :], after, strict=False):
            assert [b.ids.tolist() for _, b in step.batches] == [b.ids.tolist() for _, b in expected.batches]


def test_groups_are_those_of_the_texts():
    rows = [row for row in published() if "H-M <unk>" not in row["text"]][:60]
    symbols = [re.search(r"H-M (\S+)$", row["text"], re.MULTILINE)[1] for row in rows]
    cif = split_of([row["ids"] for row in rows], "cif", len(tokenizer.vocabulary()))
    found = batch_sampler.space_groups(cif, np.arange(60))
    assert [space_groups.get(int(number)).symbol for number in found] == symbols
    prompts = [orbits_language.prompt([("Ti", 2), ("O", 4)], int(number)) for number in found]
    split = split_of(prompts, "orbits", len(vocabulary.vocabulary()))
    assert batch_sampler.space_groups(split, np.arange(60)).tolist() == found.tolist()


def test_crystals_without_a_group_are_refused():
    with pytest.raises(InputError, match="crystal 1 of the data set has no space group") as caught:
        batch_sampler.space_groups(numbered(5), np.array([1]))
    assert "\n" not in str(caught.value)


def test_a_share_of_the_crystals_stands_behind_its_relatives():
    split, relatives = numbered(400), numbered(400, seed=1, first=1001)
    recipe = Recipe(**SMALL | {"context": 200}, relatives_share=0.7)
    sampler = BatchSampler(recipe, split, relatives=PrefixedSplit(relatives, split))
    chosen = sampler.crystals(0)
    assert sorted((chosen % 400).tolist()) == list(range(400))
    assert 0.6 < (chosen >= 400).mean() < 0.8
    reads = int(chosen[chosen >= 400][0])
    expected = [*relatives.crystal(reads - 400), *split.crystal(reads - 400)]
    assert sampler.source.crystal(reads).tolist() == expected
    other = sampler.crystals(1)
    assert ((other >= 400).sum(), sorted((other % 400).tolist())) != ((chosen >= 400).sum(), [])
    planned = sampler.plan(0)
    assert sum(len(row) for batch in planned for row in batch.crystals) == 400


def test_relatives_that_do_not_fit_the_context_are_left_out():
    split, relatives = numbered(50), split_of([np.full(90, 7)] * 50)
    sampler = BatchSampler(
        Recipe(**SMALL, relatives_share=1), split, relatives=PrefixedSplit(relatives, split)
    )
    chosen = sampler.crystals(0)
    assert (chosen >= 50).any()
    assert (sampler.source.lengths[chosen] <= 100).all()
    assert sorted((chosen % 50).tolist()) == list(range(50))
