"""Every recipe that the package brings along is one that the trainer takes."""

from __future__ import annotations

from importlib.resources import files

import pytest
import yaml

from crystallm.training import Recipe

RECIPES = sorted(p.name for p in (files("crystallm") / "recipes").iterdir() if p.name.endswith(".yaml"))


def test_there_are_recipes():
    assert "default.yaml" in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads(name):
    fields = yaml.safe_load((files("crystallm") / "recipes" / name).read_text())
    recipe = Recipe(**fields)
    assert recipe.minutes or recipe.updates
    assert set(fields) <= set(Recipe.model_fields)
