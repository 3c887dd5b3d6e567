"""Conditions of a network: values of properties become vectors that are added to each token of a crystal.

A known value v of a property with mean m and standard deviation s in the training data gives the features

    z = (v - m) / s,    f(v) = (1, z, g_1(z), ..., g_16(z)),    g_k(z) = exp(-((z - c_k) / h)^2 / 2)

with 16 centers c_k from -3 to 3 at a distance of h = 0.4, and two vectors of the network's width: W f(v),
added to the embedding of each token, and 10 U f(v), added to the input of the head, which makes some tokens
more likely directly. The vectors of all known values are added up. An unknown value, NaN here, adds nothing:
it differs from each known one by the constant feature. W and U start at zero, so that a model that gets
conditions in fine-tuning starts as it was. Positions and context do not change.

Letters of shapes: P properties, F features, C width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.network.config import ConditionScale

N_CENTERS = 16
REACH = 3.0
"""Centers lie between minus and plus this many standard deviations."""
WIDTH = 2 * REACH / (N_CENTERS - 1)
GAIN = 10.0
"""Factor of U. In fine-tuning, the gradient of U is nearly the same in each batch (squared mean over variance
0.6 for the density and 2,048 tokens). That of W is mostly noise (0.01), which a factor would amplify."""


def value_tensor(
    conditions: Sequence[Sequence[float | None]], n_properties: int, device: torch.device | str
) -> Tensor:
    """Return values (B, 1, P) of B sequences, NaN where unknown; no values at all: all are unknown."""
    rows = [
        [math.nan if value is None else value for value in values] or [math.nan] * n_properties
        for values in conditions
    ]
    return torch.tensor(rows, dtype=torch.float32, device=device)[:, None]


def guide(logits: Tensor, plain: Tensor, strength: Tensor | float) -> Tensor:
    """Return logits of classifier-free guidance (arXiv:2207.12598): plain + strength (logits - plain).

    Args:
        logits: (N, V) given the conditions.
        plain: (N, V) without conditions.
        strength: 1 for `logits`; above 1, tokens that the conditions favour become more likely. A number, or
            (N, 1).
    """
    return plain + strength * (logits - plain)


class ConditionEmbedding(nn.Module):
    """The vector of the values of properties."""

    def __init__(self, scales: Sequence[ConditionScale], width: int) -> None:
        super().__init__()
        self._scales = tuple(scales)
        self.weight = nn.Parameter(torch.zeros(len(scales), 2 + N_CENTERS, 2 * width))  # (P, F, 2 C)

    def forward(self, values: Tensor) -> Tensor:
        """Map values (..., P), NaN where unknown, to the vectors of embedding and head, (..., 2 C)."""
        device = values.device
        mean = torch.tensor([scale.mean for scale in self._scales], device=device)  # (P)
        deviation = torch.tensor([scale.deviation for scale in self._scales], device=device)  # (P)
        z = (values.float() - mean) / deviation
        known = ~z.isnan()
        z = torch.where(known, z, 0.0)[..., None]  # (..., P, 1)
        centers = torch.linspace(-REACH, REACH, N_CENTERS, device=device)
        bumps = torch.exp(-0.5 * ((z - centers) / WIDTH) ** 2)  # (..., P, 16)
        features = torch.cat((torch.ones_like(z), z, bumps), dim=-1) * known[..., None]  # (..., P, F)
        weight = self.weight
        vectors = (features.to(weight.dtype).flatten(-2) @ weight.flatten(0, 1)).to(weight.dtype)
        embedding, head = vectors.chunk(2, dim=-1)  # (..., C) each
        return torch.cat((embedding, GAIN * head), dim=-1)
