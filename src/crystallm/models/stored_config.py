"""Names of the files of a model folder, and its config. Does not import torch, which takes a second."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from crystallm.errors import CheckpointError
from crystallm.network.config import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
CARD_FILE = "card.json"
PUBLISHED_FILE = "ckpt.pt"


def is_huggingface(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is of Hugging Face's form."""
    return "model_type" in config


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise CheckpointError if the file has none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return content


def parse_config(fields: Mapping[str, Any], path: Path) -> ModelConfig:
    """Validate the fields of a config; raise CheckpointError if they are invalid."""
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        value = f" ({first['input']!r})" if field and not isinstance(first["input"], dict) else ""
        raise CheckpointError(f"{path}: {field + value + ': ' if field else ''}{first['msg']}") from error
