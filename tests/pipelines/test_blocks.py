"""Blocks of a run: which samples they hold, and how soon the first is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crystallm.crystals.selection import SelectionOptions
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.load import load_model
from crystallm.pipelines import blocks
from crystallm.validity import checks, verdict

if TYPE_CHECKING:
    from pathlib import Path

FORMULAS = ("NaCl", "TiO2", "ZnS", "SrTiO3", "C8")


def test_blocks_hold_all_samples_once_in_their_order() -> None:
    requests = [Request(formula="C", n=n) for n in (3, 1, 9, 2, 4)]
    found = list(blocks.split(requests, SelectionOptions(), 4))
    assert [block.number for block in found] == list(range(5))
    assert [block.n for block in found] == [4, 4, 4, 4, 3]
    samples = [
        (part.number, part.start + j, part.first)
        for block in found
        for part in block.parts
        for j in range(part.request.n)
    ]
    firsts = (0, 3, 4, 13, 15)
    assert samples == [(i, j, firsts[i]) for i, request in enumerate(requests) for j in range(request.n)]


@pytest.mark.parametrize(
    "selection", [SelectionOptions(only_valid=True, max_attempts=20), SelectionOptions(best=1)]
)
def test_requests_with_ranked_or_counted_crystals_are_not_split(selection: SelectionOptions) -> None:
    requests = [Request(formula="C", n=n) for n in (3, 1, 9, 2)]
    found = list(blocks.split(requests, selection, 4))
    assert [[part.number for part in block.parts] for block in found] == [[0, 1], [2], [3]]
    assert [part.first for block in found for part in block.parts] == [
        sum(selection.attempts(request.n) for request in requests[:i]) for i in range(4)
    ]


def test_blocks_are_small_but_not_too_many() -> None:
    assert [blocks.block_size(n) for n in (1, 1000, 30_000, 100_000, 10_000_000)] == [16, 16, 16, 50, 512]


@pytest.mark.parametrize(
    "selection",
    [
        SelectionOptions(),
        SelectionOptions(only_valid=True, max_attempts=4),
        SelectionOptions(rank="combined"),
    ],
)
def test_the_first_block_is_ready_before_many_more_crystals_are_sampled(
    selection: SelectionOptions, babbler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption costs the current block, and not minutes of work."""
    checked: list[str] = []

    def check_many(texts: list[str], **_: Any) -> list[verdict.Validity]:
        checked.extend(texts)
        return [checks.check(text) for text in texts]

    monkeypatch.setattr(checks, "check_many", check_many)
    settings = SamplingOptions(constraints="none", batch_size=8, device="cpu", max_new_tokens=4)
    todo = blocks.split([Request(formula=FORMULAS[i % 5], n=4) for i in range(150)], selection, blocks.BLOCK)
    counts: list[int] = []
    options = blocks.BlockOptions(settings, selection, named=True)
    model = load_model(babbler, device="cpu")
    done = blocks.sample_here(model, options, todo, progress=counts.append)
    first = next(done)
    assert first.unit == 0
    assert len(first.rows) == blocks.BLOCK
    assert len(checked) <= blocks.BLOCK
    # With `only_valid`, progress counts valid crystals, and there are none.
    assert counts[-1] <= blocks.BLOCK + settings.batch_size
