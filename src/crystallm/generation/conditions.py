"""Conditions of a request: values of properties for a network that was trained with them.

    density=5.2           this value for each sample
    band_gap=1.2:1.8      values spread evenly over the range: sample j takes (u_0 + j phi) mod 1 of it, with
                          phi the golden ratio and u_0 drawn from the seed

What a request leaves open beside its samples (Z, space group, composition) is chosen for the middle of each
range.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np

from crystallm.errors import InputError
from crystallm.options import hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.models.model import Model
    from crystallm.network.transformer import GPT
    from crystallm.sampling.sequence import Conditions

LOG = logging.getLogger(__name__)
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class RequestedCondition:
    """A requested property; `low` and `high` are equal where it is one value."""

    name: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} = {self.low:g}" + (f" to {self.high:g}" if self.high > self.low else "")


def parse_conditions(texts: Sequence[str]) -> tuple[RequestedCondition, ...]:
    """Return the conditions of `density=5.2` and `band_gap=1.2:1.8`.

    Raises:
        InputError: a text of another form, or a property twice.
    """
    found = []
    for text in texts:
        name, sign, value = text.partition("=")
        try:
            bounds = [float(part) for part in value.split(":")]
        except ValueError:
            bounds = []
        if not sign or not name or len(bounds) not in (1, 2) or not all(map(math.isfinite, bounds)):
            raise InputError(f"condition = {text[:60]!r}: write density=5.2, or a range such as density=5:6")
        if bounds[0] > bounds[-1]:
            raise InputError(f"condition = {text[:60]!r}: the range ends below its start")
        found.append(RequestedCondition(name, bounds[0], bounds[-1]))
    names = [condition.name for condition in found]
    if len(set(names)) < len(names):
        raise InputError(f"condition = {' '.join(texts)!r}: name each property once")
    return tuple(found)


def check_conditions(model: Model, requested: Sequence[RequestedCondition]) -> None:
    """Check that a model takes conditions; log those outside of its training data.

    Raises:
        InputError: a property that it was not trained with.
    """
    scales = {scale.name: scale for scale in model.config.condition_scales}
    for condition in requested:
        if condition.name not in scales:
            remedy = (
                hint(condition.name, list(scales))
                if scales
                else f"it takes none, fine-tune one with crystallm train --condition {condition.name}"
            )
            raise InputError(
                f"condition {condition.name!r}: the model {model.name!r} was not trained with it; {remedy}"
            )
        scale = scales[condition.name]
        if condition.low < scale.lowest or condition.high > scale.highest:
            known = f"{scale.lowest:.4g} to {scale.highest:.4g} {scale.unit}".rstrip()
            _warn(f"{condition} is outside of the training data ({known}): expect poor crystals")


@cache
def _warn(message: str) -> None:
    """Log a message once."""
    LOG.warning("%s", message)


def values_of(
    model: Model, requested: Sequence[RequestedCondition], *, seed: int, first: int, sample: int
) -> Conditions:
    """Return the values of a sample in the order of the model's properties; empty without conditions.

    Args:
        model: with these properties.
        requested: conditions of the request.
        seed: of the run.
        first: index of the request's first sample in the run.
        sample: number of the sample in the request.
    """
    if not requested:
        return ()
    # Counters (0, 0, 0, 0) and (0, 0, 0, 1) on are those of samples and of choices.
    stream = np.random.Philox(key=np.array([seed, first], dtype=np.uint64), counter=np.array([0, 0, 1, 0]))
    starts = np.random.Generator(stream).random(len(requested)).tolist()
    chosen = {
        condition.name: condition.low + (condition.high - condition.low) * ((start + sample * GOLDEN) % 1.0)
        for condition, start in zip(requested, starts, strict=True)
    }
    return tuple(chosen.get(name) for name in model.config.conditions)


def as_text(model: Model, values: Conditions) -> str:
    """Return the values of a sample as text, `density=5.2 band_gap=1.31`."""
    pairs = zip(model.config.conditions, values or (None,) * len(model.config.conditions), strict=True)
    return " ".join(f"{name}={value:.6g}" for name, value in pairs if value is not None)


def conditioned(model: Model, requested: Sequence[RequestedCondition], guidance: float) -> Model:
    """Return a model whose probabilities are those given the middles of the requested ranges."""
    if not requested:
        return model
    from crystallm.sampling.conditioned_network import ConditionedNetwork

    middles = {condition.name: (condition.low + condition.high) / 2 for condition in requested}
    values = tuple(middles.get(name) for name in model.config.conditions)
    network = ConditionedNetwork(model.network, values, guidance)
    return replace(model, weights=cast("GPT", network))
