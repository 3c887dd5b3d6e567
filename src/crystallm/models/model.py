"""A model: a network with its language and card."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystallm.language import Language
    from crystallm.network.config import ModelConfig
    from crystallm.network.transformer import GPT


@dataclass(frozen=True)
class Model:
    """A network, and the language that it writes."""

    name: str
    """Name of the bundled model, or of the file or folder it came from."""
    network: GPT
    """In evaluation mode."""
    language: Language
    """Turns structures into the network's tokens and back."""
    config: ModelConfig
    """How the network is built."""
    card: dict[str, Any] = field(default_factory=dict)
    """What `card.json` says beside the weights: data, licences, figures. Empty where there is none."""


def fingerprint(model: Model) -> str:
    """A few characters that tell the weights of one model from another's."""
    import torch

    embedding = model.network.transformer.wte.weight.detach().to("cpu", torch.float32)
    return hashlib.blake2b(embedding.numpy().tobytes(), digest_size=8).hexdigest()
