"""Save and read model folders of safetensors shards.

A folder holds `config.json` (the fields of `ModelConfig`), `model-00001-of-0000N.safetensors` shards of at
most 15 MB, `model.safetensors.index.json` (the shard of each tensor) and optionally `card.json` (data,
licences, figures). The tied head is stored once, as `transformer.wte.weight`. A tensor larger than a shard is
split along its first axis into `NAME#1of2`, `NAME#2of2`.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crystallm.errors import CheckpointError, CrystallmError
from crystallm.models import huggingface
from crystallm.models.build import WRAPPERS
from crystallm.models.stored_config import (
    CARD_FILE,
    CONFIG_FILE,
    INDEX_FILE,
    is_huggingface,
    parse_config,
    read_json,
)
from crystallm.storage.files import write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from crystallm.network.config import ModelConfig
    from crystallm.network.transformer import GPT

SHARD_BYTES = 15_000_000
_HEADER_BYTES = 200_000  # reserved in each shard for the names of its tensors
_OWN_FILE = re.compile(
    r"config\.json|card\.json|model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors"
)
_PART = re.compile(r"(?P<name>.+)#(?P<part>\d+)of(?P<n_parts>\d+)")


def save(
    network: GPT,
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Save a network as a folder of safetensors shards.

    Writes a temporary folder and renames it, so that a reader finds the old weights, the new ones or, for an
    instant, none, but never a part. Replaces an earlier model folder and keeps its other files, such as a
    recipe.

    Args:
        dtype: of the stored weights, e.g. torch.bfloat16; unchanged if None.
        card: content of `card.json`, if any.

    Returns:
        The folder.

    Raises:
        CheckpointError: the path exists and is not a model folder, or cannot be written.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    if folder.exists() and not (folder / CONFIG_FILE).is_file() and not _is_empty_folder(folder):
        raise CheckpointError(f"{folder} exists and holds no model: choose another folder")
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        temporary.chmod(0o755)  # mkdtemp gives access to the owner only
        _write_folder(network, temporary, dtype, card)
        if folder.exists():
            _carry_over(folder, temporary)
            old = temporary.with_name(temporary.name + ".old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    except (OSError, CrystallmError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder} cannot be written: {reason}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read config and state dict of a folder, ours or in Hugging Face's form.

    Raises:
        CheckpointError: files are missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / CONFIG_FILE).is_file():
        trained = folder / "model"
        remedy = f"name {trained}" if (trained / CONFIG_FILE).is_file() else "not a folder of weights"
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}: {remedy}")
    content = read_json(folder / CONFIG_FILE)
    if is_huggingface(content):
        return huggingface.read(folder)
    config = parse_config(content, folder / CONFIG_FILE)
    shards = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(shards, dict) or not all(_OWN_FILE.fullmatch(str(shard)) for shard in shards.values()):
        raise CheckpointError(f"{folder / INDEX_FILE} does not list the shard of each tensor")
    parts: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        try:
            parts.update(load_file(folder / shard))
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder} lacks the shard {shard}: fetch the folder again") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder / shard} is damaged ({error}): fetch the folder again") from error
    if parts.keys() != shards.keys():
        name = min(parts.keys() ^ shards.keys())
        raise CheckpointError(f"{folder}: index and shards disagree on {name}: fetch the folder again")
    return config, _join(parts, folder)


def _join(parts: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Concatenate tensors that were split to fit a shard."""
    state: dict[str, Tensor] = {}
    split: dict[str, dict[int, Tensor]] = {}
    n_parts: dict[str, int] = {}
    for name, tensor in parts.items():
        match = _PART.fullmatch(name)
        if match is None:
            state[name] = tensor
        else:
            split.setdefault(match["name"], {})[int(match["part"])] = tensor
            n_parts[match["name"]] = int(match["n_parts"])
    for name, pieces in split.items():
        if sorted(pieces) != list(range(1, n_parts[name] + 1)):
            raise CheckpointError(f"{folder}: {name} is incomplete: fetch the folder again")
        try:
            state[name] = torch.cat([pieces[part] for part in sorted(pieces)])
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: the parts of {name} do not fit together") from error
    return state


def tensor_parts(network: GPT, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters by name, split where one is larger than a shard."""
    limit = SHARD_BYTES - _HEADER_BYTES
    for key, parameter in network.named_parameters():
        name = WRAPPERS.sub("", key)
        tensor = parameter.detach().to("cpu", dtype or parameter.dtype).contiguous()
        n_parts = math.ceil(tensor.nbytes / limit)
        if n_parts == 1:
            yield name, tensor
            continue
        for part, piece in enumerate(tensor.tensor_split(n_parts), start=1):
            yield f"{name}#{part}of{n_parts}", piece.contiguous()


def _write_folder(
    network: GPT, folder: Path, dtype: torch.dtype | None, card: Mapping[str, Any] | None
) -> None:
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    free = SHARD_BYTES - _HEADER_BYTES
    total = 0
    for name, tensor in tensor_parts(network, dtype):
        if tensor.nbytes > free and shards[-1]:
            shards.append({})
            free = SHARD_BYTES - _HEADER_BYTES
        shards[-1][name] = tensor
        free -= tensor.nbytes
        total += tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)
        weight_map.update(dict.fromkeys(shard, file))
    write_json(folder / CONFIG_FILE, network.config.content())
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    if card is not None:
        write_json(folder / CARD_FILE, dict(card))


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _carry_over(old: Path, new: Path) -> None:
    """Copy the other files of a model folder, and the old card if there is no new one."""
    for path in old.iterdir():
        if (_OWN_FILE.fullmatch(path.name) and path.name != CARD_FILE) or (new / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name)
        else:
            shutil.copy2(path, new / path.name)
