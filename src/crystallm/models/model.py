"""Model: a network with its language and card; fingerprint of its weights."""

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
    """A network with the language of its tokens."""

    name: str
    """Name of the bundled model, or of its file or folder."""
    network: GPT
    """In evaluation mode."""
    language: Language
    """Encodes structures as tokens of the network and decodes them."""
    config: ModelConfig
    """Shape of the network."""
    card: dict[str, Any] = field(default_factory=dict)
    """Content of `card.json` beside the weights: data, licences, figures. Empty if there is none."""


def fingerprint(model: Model) -> str:
    """Return a hash of the token embeddings, 16 hexadecimal digits, that identifies the weights."""
    import torch

    embedding = model.network.transformer.wte.weight.detach().to("cpu", torch.float32)
    return hashlib.blake2b(embedding.numpy().tobytes(), digest_size=8).hexdigest()
