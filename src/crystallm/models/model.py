"""Model: a network with its language and card, and the fingerprint of its weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystallm.language import Language
    from crystallm.network.config import ModelConfig
    from crystallm.network.transformer import GPT


@dataclass(frozen=True)
class UnreadNetwork:
    """A network whose weights are not read yet."""

    read: Callable[[], GPT]


@dataclass(frozen=True)
class Model:
    """A network with the language of its tokens."""

    name: str
    """Name of the bundled model, or of its file or folder."""
    weights: GPT | UnreadNetwork
    """The network, or what reads it."""
    language: Language
    """Encodes structures as tokens of the network and decodes them."""
    config: ModelConfig
    """Shape of the network."""
    card: dict[str, Any] = field(default_factory=dict)
    """Content of `card.json` beside the weights: data, licences, figures. Empty if there is none."""

    @cached_property
    def network(self) -> GPT:
        """The network in evaluation mode, read when it is first used; raises as `load_model`."""
        return self.weights.read() if isinstance(self.weights, UnreadNetwork) else self.weights

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all weights in float32, 16 hexadecimal digits; computed once."""
        import torch

        digest = hashlib.blake2b(digest_size=8)
        for name, weights in self.network.named_parameters():
            digest.update(f"{name} {tuple(weights.shape)}\0".encode())
            digest.update(weights.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        if self.config.condition_scales:
            digest.update(repr(self.config.condition_scales).encode())
        if self.config.n_relatives:
            digest.update(f"reads {self.config.n_relatives}".encode())
        return digest.hexdigest()
