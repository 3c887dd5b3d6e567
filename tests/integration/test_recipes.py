"""Every recipe that the package brings along is one that the trainer takes, for the network that it names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from crystallm.datasets import shards
from crystallm.language import get_language
from crystallm.storage import run_folder
from crystallm.training import loop, metrics, state
from crystallm.training.recipe import BUDGET, Recipe, bundled
from real_crystals import write_split

RECIPES = bundled()
WEIGHTS = Path(loop.__file__).parents[1] / "models" / "weights"
# Tokens an update and updates, as the paper has them (../shared/spec.md, section 4).
PAPER = {"perov_5": (131_072, 1_750), "carbon_24": (65_536, 8_000), "mp_20": (131_072, 5_000)} | {
    "mpts_52": (131_072, 3_500)
}


def read(name: str) -> Recipe:
    return Recipe(**yaml.safe_load(RECIPES[name].read_text(encoding="utf-8")))


def test_there_are_recipes():
    papers = {f"paper-{size}-{name}" for size in ("small", "large") for name in ("full", *PAPER)}
    assert set(RECIPES) == papers | {f"orbits-{name}" for name in PAPER} | {"default"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_for_and_how_its_data_are_made(name):
    text = RECIPES[name].read_text(encoding="utf-8")
    head = text[: text.index("language:")]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "#   crystallm prepare " in head
    assert f"#   crystallm train {name} --dataset data --out run" in head
    assert ("--language cif" in head) == (read(name).language == "cif")


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("paper")])
def test_a_recipe_of_the_paper_says_what_the_paper_says(name):
    recipe = read(name)
    _, size, data = name.split("-")
    form = {"small": (8, 8, 512, 1024), "large": (16, 16, 1024, 2048)}[size]
    assert (recipe.n_layer, recipe.n_head, recipe.n_embd, recipe.context) == form
    tokens, updates = PAPER.get(data, (1_310_720, 100_000 if size == "small" else 48_000))
    assert (recipe.batch_tokens * recipe.gradient_accumulation, recipe.max_updates) == (tokens, updates)
    assert recipe.batch_tokens % recipe.context == 0
    assert (recipe.learning_rate, recipe.final_learning_rate_fraction, recipe.warmup) == (1e-3, 0.1, 100)
    assert (recipe.beta2, recipe.weight_decay, recipe.gradient_clip, recipe.dropout) == (0.99, 0.1, 1.0, 0.1)
    assert (recipe.packing, recipe.language) == ("random", "cif")


@pytest.mark.parametrize("part", ["recipe-1.json", "recipe-2.json", "recipe-3.json", state.RECIPE])
def test_all_parts_of_the_bundled_model_were_trained_much_like_what_we_recommend(part):
    recipe = read("default")
    brought = Recipe.model_validate_json((WEIGHTS / "default" / part).read_text(encoding="utf-8"))
    other = {"dtype", "dropout", "augmentation_share", "batch_tokens", *BUDGET}
    if part != "recipe-1.json":  # it goes on from the part before
        other |= {"learning_rate", "warmup", "init_from", "patience"}
    if part == state.RECIPE:  # half of its crystals are hypothetical
        other |= {"replay_dataset", "replay_share"}
    left = {"validate_every", "compile"}  # decide nothing
    assert recipe.model_dump(exclude=other | left) == brought.model_dump(exclude=other | left)
    assert 0 < brought.learning_rate <= recipe.learning_rate


def test_the_default_recipe_prepares_what_it_draws_from():
    recipe = read("default")
    assert (recipe.augmentation_share, recipe.dropout, recipe.max_tokens) == (0.9, 0.1, 60_000_000)
    assert "--augmentations 6" in RECIPES["default"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs(tmp_path, monkeypatch, name):
    monkeypatch.setattr(metrics, "plot", lambda _: None)
    recipe, rng = read(name), np.random.default_rng(0)
    for split in ("train", "val"):
        write_split(tmp_path / "data", split, [rng.integers(40, size=30) for _ in range(20)])
    if recipe.augmentation_share:
        write_split(tmp_path / "data", shards.EQUIVALENTS, [rng.integers(40, size=30) for _ in range(40)])
    assert recipe.language is not None
    size = len(get_language(recipe.language).vocabulary())
    facts = {"language": recipe.language, "vocab_size": size}
    (tmp_path / "data" / run_folder.FACTS).write_text(json.dumps(facts))
    # Time is what is saved here: all else is as the recipe has it.
    small = {"n_layer": 1, "n_embd": 2 * recipe.n_head, "context": 32, "batch_tokens": 64} | {
        "gradient_accumulation": min(2, recipe.gradient_accumulation), "validate_every": 1.0,
    } | dict.fromkeys(BUDGET)  # fmt: skip
    small |= {"max_tokens": 3 * 60} if recipe.augmentation_share else {"max_updates": 3}
    smaller = Recipe(**recipe.model_dump() | small)
    end = loop.train(smaller, tmp_path / "data", tmp_path / "run", device="cpu")
    assert (end.update, end.tokens > 0) == (3, True)
    assert (tmp_path / "run" / state.MODEL / "config.json").exists()


def test_recipes_are_part_of_the_package():
    assert {path.parent for path in RECIPES.values()} == {Path(loop.__file__).parent / "recipes"}
