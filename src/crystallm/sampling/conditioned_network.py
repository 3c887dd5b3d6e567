"""A network with fixed conditions, as a function of token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.network.conditions import guide, value_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from crystallm.network.transformer import GPT
    from crystallm.sampling.sequence import Conditions


class ConditionedNetwork:
    """A network whose conditions are the same in each call: token ids to guided logits.

    Args:
        network: with conditions.
        values: of its properties, in their order; None where unknown.
        guidance: strength, see `guide`.
    """

    def __init__(self, network: GPT, values: Conditions, guidance: float) -> None:
        self._network, self._values, self._guidance = network, values, guidance
        self.config, self.transformer = network.config, network.transformer

    def __call__(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) of the next token at every position of ids (B, T)."""
        conditions = value_tensor([self._values] * len(ids), len(self._values), ids.device)
        logits: Tensor = self._network(ids, conditions=conditions)
        return logits if self._guidance == 1 else guide(logits, self._network(ids), self._guidance)
