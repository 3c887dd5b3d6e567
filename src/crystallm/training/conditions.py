"""Values of properties that a network is trained with, and their scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crystallm.datasets import shards
from crystallm.errors import InputError
from crystallm.models.load import stored_config
from crystallm.models.stored_config import CONFIG_FILE, parse_config, read_json
from crystallm.network.config import ConditionScale
from crystallm.training.state import LAST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from crystallm.training.recipe import Recipe

    Values = npt.NDArray[np.float64]


def load_values(
    recipe: Recipe, data: str | Path, *, n_replayed: int | None, n_augmented: int | None
) -> tuple[Values, Values]:
    """Return the values [n, n_properties] of the crystals of a `BatchSampler.source`, and of `val`.

    Args:
        recipe: with conditions.
        data: data set folder.
        n_replayed: number of crystals of the older data set, if any; its properties count where it has them.
        n_augmented: number of equivalent descriptions, if any.

    Raises:
        InputError: the data set lacks a property, or no training crystal has a value of it.
    """
    names = recipe.condition
    values, held_out = (shards.load_properties(data, split, names) for split in ("train", "val"))
    for name, column in zip(names, values.T, strict=True):
        if np.unique(column[~np.isnan(column)]).size < 2:
            raise InputError(
                f"condition {name!r}: fewer than two different values in the training crystals of "
                f"{str(data)!r}: prepare data that have them, or leave the condition out"
            )
    more = np.empty((0, len(names)))
    if n_augmented is not None:
        more = np.repeat(values, n_augmented // len(values), axis=0)
    elif n_replayed is not None:
        more = _replayed(str(recipe.replay_dataset), names, n_replayed)
    return np.concatenate([values, more]), held_out


def _replayed(folder: str, names: Sequence[str], n: int) -> Values:
    """Return the values of an older data set, NaN for a property that it lacks."""
    known = shards.property_units(folder)
    values = np.full((n, len(names)), np.nan)
    for i, name in enumerate(names):
        if name in known:
            values[:, i] = shards.load_properties(folder, "train", (name,))[:, 0]
    return values


def make_scales(
    recipe: Recipe, data: str | Path, values: Values, folder: Path, *, resume: bool
) -> tuple[ConditionScale, ...]:
    """Return the scales of the conditions of a run: those of `init_from`, or else of its own data.

    Args:
        recipe: with conditions.
        data: data set folder.
        values: [n, n_properties] of the training crystals.
        folder: of the run.
        resume: whether the run exists; its own scales then count.
    """
    stored = folder / LAST / CONFIG_FILE
    known: dict[str, ConditionScale] = {}
    if resume and stored.is_file():
        known = {scale.name: scale for scale in parse_config(read_json(stored), stored).condition_scales}
    elif recipe.init_from is not None:
        config = stored_config(recipe.init_from)  # the other forms have no conditions
        known = {} if config is None else {scale.name: scale for scale in config.condition_scales}
    units = shards.property_units(data)
    return tuple(
        known.get(name) or _scale(name, units[name], column[~np.isnan(column)])
        for name, column in zip(recipe.condition, values.T, strict=True)
    )


def _scale(name: str, unit: str, values: Values) -> ConditionScale:
    return ConditionScale(
        name, unit, float(values.mean()), float(values.std()), float(values.min()), float(values.max())
    )
