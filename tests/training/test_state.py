"""The recipe of a run: former names of fields, damaged files."""

from __future__ import annotations

import json

import pytest

from crystallm.errors import CheckpointError
from crystallm.training import state
from crystallm.training.recipe import Recipe

FORMER = {
    "language": "orbits", "form": "llama", "n_layer": 6, "n_head": 8, "n_embd": 256, "bias": False,
    "context": 1024, "dropout": 0.0, "windows": "packed", "rare": 0.0, "mix": None, "mix_share": 0.1,
    "equivalents": 0.9, "batch_tokens": 2048, "accumulate": 2, "learning_rate": 0.0015, "final_rate": 0.02,
    "warmup": 50, "optimizer": "muon", "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "clip": 0.5,
    "light": 0.2, "ema": None, "tokens": 2000000, "updates": None, "minutes": None, "validate_every": 0.25,
    "patience": None, "spike": 3.0, "seed": 0, "dtype": "auto", "compile": False, "init_from": "default",
}  # fmt: skip


def test_a_run_with_former_names_is_read(tmp_path):
    (tmp_path / state.RECIPE).write_text(json.dumps(FORMER))
    recipe = state.read_recipe(tmp_path)
    assert (recipe.max_tokens, recipe.max_updates, recipe.max_minutes) == (2_000_000, None, None)
    assert (recipe.augmentation_share, recipe.low_weight, recipe.gradient_clip) == (0.9, 0.2, 0.5)
    assert (recipe.gradient_accumulation, recipe.max_loss_jump, recipe.packing) == (2, 3.0, "packed")
    assert recipe.final_learning_rate_fraction == 0.02
    (tmp_path / state.RECIPE).write_text(recipe.model_dump_json())
    assert state.read_recipe(tmp_path) == recipe


def test_a_removed_field_that_had_an_effect_is_rejected(tmp_path):
    (tmp_path / state.RECIPE).write_text(json.dumps(FORMER | {"ema": 0.99}))
    with pytest.raises(CheckpointError, match="ema"):
        state.read_recipe(tmp_path)


def test_temporary_files_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".model.abc").mkdir()
    (tmp_path / f".{state.STATE}.new").write_bytes(b"half")
    (tmp_path / state.STATE).write_bytes(b"whole")
    state.remove_temporary(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [state.STATE]


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"recipe.json' is not a recipe"):
        state.read_recipe(tmp_path)
    assert Recipe(max_updates=1).max_updates == 1
