"""A network with fixed conditions gives the logits of guidance."""

from __future__ import annotations

import pytest
import torch

from conditioned_networks import conditioned_network
from crystallm.network.conditions import guide, value_tensor
from crystallm.sampling.conditioned_network import ConditionedNetwork


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_it_gives_guided_logits(guidance):
    network = conditioned_network()
    ids = torch.arange(12).reshape(2, 6)
    values = value_tensor([(4.0, None)] * 2, 2, "cpu")
    expected = guide(network(ids, conditions=values), network(ids), guidance)
    torch.testing.assert_close(ConditionedNetwork(network, (4.0, None), guidance)(ids), expected)
