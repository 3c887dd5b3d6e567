from __future__ import annotations

import json

import pytest
from pyarrow import parquet

from crystallm.datasets import prepare, shards
from crystallm.datasets.options import PrepareOptions
from crystallm.errors import InputError
from crystallm.orbits import augmentation
from prepared import all_bytes, contents, crystals, rows_of, write_csv


def test_a_collection_of_noise_leaves_the_reasons(tmp_path):
    prepare.prepare([write_csv(tmp_path / "book.csv", [("a", "noise")])], tmp_path / "data")
    schema = parquet.read_schema(tmp_path / "data" / "rows.parquet")
    assert schema.names == [
        "id", "source", "split", "formula", "cell", "space_group", "n_atoms", "note", "tokens",
        "density", "volume_per_atom",
    ]  # fmt: skip
    assert [row["id"] for row in contents(tmp_path / "data")["rejected.parquet"]] == ["a"]
    assert len(shards.load(tmp_path / "data", "train")) == 0


def test_training_crystals_are_told_in_other_ways_too(tmp_path, long):
    choices = PrepareOptions(val_fraction=0.2, deduplicate="none", augmentations=3)
    report = prepare.prepare([long], tmp_path / "data", choices)
    ours, others = crystals(tmp_path / "data", "train"), crystals(tmp_path / "data", shards.EQUIVALENTS)
    assert len(others) == 3 * len(ours) == report.augmentations
    for number, ids in enumerate(ours):
        assert others[3 * number : 3 * number + 3] == augmentation.augmentations(
            ids, 3, seed=0, number=number
        )
    assert report.different == sum(other != ours[i // 3] for i, other in enumerate(others)) > 0
    assert json.loads((tmp_path / "data" / "report.json").read_text())["augmentations"] == len(others)
    assert report.written == sum(report.crystals.values()) == len(rows_of(tmp_path / "data"))
    plain = prepare.prepare([long], tmp_path / "plain", choices.model_copy(update={"augmentations": 0}))
    assert (plain.crystals, plain.augmentations) == (report.crystals, 0)
    assert crystals(tmp_path / "plain", "train") == ours
    assert not (tmp_path / "plain" / "equivalents.bin").exists()
    with pytest.raises(InputError, match="holds another run .augmentations was 3, now 2."):
        prepare.prepare([long], tmp_path / "data", choices.model_copy(update={"augmentations": 2}))


def test_equivalents_of_a_run_that_failed_are_those_of_one_that_did_not(tmp_path, long, monkeypatch):
    choices = PrepareOptions(val_fraction=0.2, deduplicate="none", augmentations=2)
    prepare.prepare([long], tmp_path / "whole", choices)
    several, left = augmentation.augmentations, iter(range(20))

    def failing(*args, **more):
        next(left)
        return several(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(augmentation, "augmentations", failing)
        with pytest.raises(StopIteration):
            prepare.prepare([long], tmp_path / "data", choices)
    with pytest.raises(InputError, match="no data set"):
        shards.load(tmp_path / "data", shards.EQUIVALENTS)
    assert not (tmp_path / "data" / "equivalents.bin").exists()
    prepare.prepare([long], tmp_path / "data", choices, workers=2)
    assert all_bytes(tmp_path / "data") == all_bytes(tmp_path / "whole")
