"""Load a model by name, path or address on the Hub."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.errors import CheckpointError
from crystallm.execution.devices import resolve_device, resolve_dtype
from crystallm.language import get_language
from crystallm.models import download, hub
from crystallm.models.model import Model, UnreadNetwork
from crystallm.models.stored_config import (
    CARD_FILE,
    CONFIG_FILE,
    PUBLISHED_FILE,
    is_huggingface,
    parse_config,
    read_json,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import torch

    from crystallm.network.config import ModelConfig
    from crystallm.network.transformer import GPT

ARCHIVES = (".tar.gz", ".tgz", ".tar")
"""Suffixes of archives that hold a published file."""

_MAX_RATIO, _FREE_BYTES = 20, 100_000_000
"""How much an archive may unpack to: a multiple of its size, or bytes. Weights hardly pack at all."""

WEIGHTS = Path(__file__).parent / "weights"


def load_model(
    path_or_name: str | os.PathLike[str] = "default",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> Model:
    """Load a model.

    Args:
        path_or_name: a name of `list_models()`, a path (a folder of ours or in Hugging Face's form, a
            `ckpt.pt`, an archive of one), `hf:org/name`, or a name of `models.download.names()`. A bundled
            name takes precedence over a folder of that name; write `./default` for the folder.
        device: `auto` is a GPU if there is one.
        dtype: `auto` is float32.

    Raises:
        CheckpointError: the model is missing, cannot be read or does not fit its language.
    """
    path = find(path_or_name)
    network = load(path, device=device, dtype=dtype)
    return _model(path_or_name, path, network, network.config)


def open_model(
    path_or_name: str | os.PathLike[str] = "default",
    *,
    device: str = "auto",
    dtype: str = "auto",
    before: Callable[[], object] | None = None,
) -> Model:
    """Open a model; the weights of a folder of ours are read when its network is first used.

    Config and language are read now, without torch, whose import takes a second.

    Args:
        path_or_name: as for `load_model`; so are device and dtype.
        before: called once, before the weights are read.

    Raises:
        CheckpointError: as `load_model`; what is wrong with weights is raised when these are read.
        InputError: there is no such device or dtype.
    """
    if device not in {"auto", "cpu"} or dtype != "auto":
        resolve_device(device), resolve_dtype(dtype)
    path = find(path_or_name)

    def read() -> GPT:
        if before is not None:
            before()
        return load(path, device=device, dtype=dtype)

    config = stored_config(path)
    if config is not None:
        return _model(path_or_name, path, UnreadNetwork(read), config)
    network = read()
    return _model(path_or_name, path, network, network.config)


def _model(
    given: str | os.PathLike[str], path: Path, weights: GPT | UnreadNetwork, config: ModelConfig
) -> Model:
    """Return a model with its language, card and name; raise CheckpointError if the language has changed."""
    language = get_language(config.language)
    n_tokens = len(language.vocabulary())
    if n_tokens != config.vocab_size:
        raise CheckpointError(
            f"{path}: the network has {config.vocab_size} tokens, its language {config.language!r} has "
            f"{n_tokens}; use the version that saved the weights"
        )
    card = read_json(path / CARD_FILE) if (path / CARD_FILE).is_file() else {}
    is_name = path.parent == WEIGHTS or str(given).startswith(hub.PREFIX) or str(given) in download.names()
    name = str(given) if is_name else path.resolve().name
    return Model(name=name, weights=weights, language=language, config=config, card=card)


def find(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the path of a model: a bundled name, else a path, else a downloaded published model.

    `hf:org/name` is downloaded from the Hugging Face Hub, unless it is in the cache.

    Raises:
        CheckpointError: there is no such model.
    """
    name = str(path_or_name)
    if name.startswith(hub.PREFIX):
        return hub.fetch(name)
    path = WEIGHTS / name if name in list_models() else Path(path_or_name)
    if path.exists():
        return path
    if name in download.names():
        if download.path(name).exists():
            return download.path(name)
        raise CheckpointError(f"{name} is not downloaded yet: crystallm models --fetch {name}")
    names = ", ".join(list_models()) or "none"
    raise CheckpointError(f"no model {name!r}: give a path, hf:org/name, or a bundled name ({names})")


def language_of(path_or_name: str | os.PathLike[str]) -> str:
    """Return the name of a model's language without reading weights.

    Raises:
        CheckpointError: there is no such model, or its config is damaged.
    """
    from crystallm.models import huggingface

    config = stored_config(path_or_name)
    if config is not None:
        return config.language
    path = find(path_or_name) / CONFIG_FILE
    return huggingface.language_of(read_json(path)) if path.is_file() else "cif"  # of published files


def stored_config(path_or_name: str | os.PathLike[str]) -> ModelConfig | None:
    """Return the config of a model folder of ours without reading weights; None for a model in another form.

    Raises:
        CheckpointError: there is no such model, or its config is damaged.
    """
    path = find(path_or_name) / CONFIG_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    return None if is_huggingface(content) else parse_config(content, path)


def list_models() -> list[str]:
    """Return the names of the bundled models, sorted."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{CONFIG_FILE}"))


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> GPT:
    """Load a network in evaluation mode.

    Args:
        path: a folder of ours or in Hugging Face's form, a published `ckpt.pt`, a folder or archive of one.
        device: `auto` is a GPU if there is one.
        dtype: of the loaded weights; `auto` is float32, whatever the stored dtype.

    Raises:
        CheckpointError: the path is missing, a file is truncated or of another kind, shapes, names or config
            keys are wrong.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"no weights at {str(path)!r}: give a folder with {CONFIG_FILE}, or a {PUBLISHED_FILE}"
        )
    if path.is_dir() and not (path / CONFIG_FILE).is_file() and (path / PUBLISHED_FILE).is_file():
        path /= PUBLISHED_FILE
    if not path.is_dir() and not path.is_file():
        raise CheckpointError(f"{str(path)!r} is a device or a pipe: give a file or a folder")
    from crystallm.models.build import build, read_published
    from crystallm.models.folder import read_folder

    options = resolve_device(device), resolve_dtype(dtype)
    if path.is_file() and path.name.endswith(ARCHIVES):
        with tempfile.TemporaryDirectory() as folder:
            return build(*read_published(_unpack(path, Path(folder))), path, *options)
    config, state = read_folder(path) if path.is_dir() else read_published(path)
    return build(config, state, path, *options)


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack only the `ckpt.pt` of a published archive into a folder and return its path."""
    target = folder / PUBLISHED_FILE
    most = max(_FREE_BYTES, _MAX_RATIO * archive.stat().st_size)
    total = 0
    try:
        with tarfile.open(archive) as content:
            for member in content:
                total += member.size
                if total > most:
                    raise CheckpointError(
                        f"{archive} unpacks to more than {_MAX_RATIO} times its size: not a published model"
                    )
                if member.isfile() and member.name.rsplit("/", maxsplit=1)[-1] == PUBLISHED_FILE:
                    stream = content.extractfile(member)
                    if stream is not None:
                        with stream, target.open("wb") as file:
                            shutil.copyfileobj(stream, file, 1 << 20)
                        return target
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise CheckpointError(f"{archive} cannot be read ({error}): fetch it again") from error
    raise CheckpointError(f"{archive} holds no {PUBLISHED_FILE}: not a published model")
