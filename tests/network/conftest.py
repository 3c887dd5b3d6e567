"""A small network of each form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crystallm.network.transformer import GPT

from random_networks import build


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def network(request: pytest.FixtureRequest) -> GPT:
    return build(form=request.param)
