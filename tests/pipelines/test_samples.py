"""Rows and CIFs of requests, here and on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crystallm.crystals.selection import SelectionOptions
from crystallm.crystals.table import COLUMNS
from crystallm.errors import InputError
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.load import load_model
from crystallm.pipelines import samples

if TYPE_CHECKING:
    from pathlib import Path

REQUESTS = [Request(formula="NaCl", z=4, n=2), Request(formula="TiO2", z=2, n=1)]


def test_rows_have_their_places_in_the_run_and_files_of_selected_crystals(
    parrot: Path, inline: list[str]
) -> None:
    settings = SamplingOptions(model=str(parrot), seed=2, device="cpu")
    selection = SelectionOptions(best=1)
    generator = Generator(
        load_model(parrot, device="cpu"), REQUESTS, settings, selection, first=[10, 20], starts=[3, 0]
    )
    results = list(samples.sample_requests(generator, [0, 1], selection, numbers=[7, 8], named=True))
    assert [result.unit for result in results] == [7, 8]
    rows = [row for result in results for row in result.rows]
    assert all(list(row) == list(COLUMNS) for row in rows)
    assert [(row["request"], row["sample"], row["sample_index"]) for row in rows] == [
        (7, 3, 13), (7, 4, 14), (8, 0, 20),
    ]  # fmt: skip
    for result in results:
        (name,) = result.cifs
        (row,) = [row for row in result.rows if row["file"]]
        assert row["rank"] == 1
        assert name == row["file"]
        assert name.startswith(f"{result.unit:05d}-{row['formula']}-sg{row['space_group_number']}-")
        assert result.cifs[name] == row["cif"]


def test_a_worker_samples_the_same_and_rejects_other_weights(parrot: Path, inline: list[str]) -> None:
    settings = SamplingOptions(model=str(parrot), seed=2, device="cpu")
    model = load_model(parrot, device="cpu")
    task = samples.model_description(model, settings) | {"first": [0, 2]}
    there = samples.make_task_generator(task, REQUESTS)
    here = Generator(model, REQUESTS, settings)
    assert [[crystal.ids for crystal in found] for found in there.generate([0, 1])] == [
        [crystal.ids for crystal in found] for found in here.generate([0, 1])
    ]
    with pytest.raises(InputError, match="the workers see other weights"):
        samples.make_task_generator(task | {"weights": "0" * 64}, REQUESTS)
