"""Load a model by name, path or address."""

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
from crystallm.models import download, hub, huggingface
from crystallm.models.build import build, parse_config, read_json, read_published
from crystallm.models.folder import CARD_FILE, CONFIG_FILE, PUBLISHED_FILE, read_folder
from crystallm.models.model import Model

if TYPE_CHECKING:
    import os

    import torch

    from crystallm.network.transformer import GPT


ARCHIVES = (".tar.gz", ".tgz", ".tar")
"""Endings of archives with a published file in them."""

WEIGHTS = Path(__file__).parent / "weights"


def load_model(
    path_or_name: str | os.PathLike[str] = "default",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> Model:
    """Load a bundled model by its name, a folder of ours, or what others have published.

    Args:
        path_or_name: a name of `list_models()`, a path (a folder of ours or in Hugging Face's form, a
            `ckpt.pt`, an archive of one), `hf:org/name`, or a name of `published.names()`. A bundled name
            wins over a folder of that name; write `./default` for the folder.
        device: `auto` takes a GPU where there is one.
        dtype: `auto` is float32.

    Raises:
        CheckpointError: there is no such model, or it cannot be read, or does not fit its language.
    """
    path = find(path_or_name)
    network = load(path, device=device, dtype=dtype)
    language = get_language(network.config.language)
    n_tokens = len(language.vocabulary())
    if n_tokens != network.config.vocab_size:
        raise CheckpointError(
            f"{path}: the network has {network.config.vocab_size} tokens, its language "
            f"{network.config.language!r} has {n_tokens}; use the version that wrote the weights"
        )
    card = read_json(path / CARD_FILE) if (path / CARD_FILE).is_file() else {}
    told = str(path_or_name)
    named = path.parent == WEIGHTS or told.startswith(hub.PREFIX) or told in download.names()
    name = told if named else path.resolve().name
    return Model(name=name, network=network, language=language, config=network.config, card=card)


def find(path_or_name: str | os.PathLike[str]) -> Path:
    """Where a model lies; a bundled name wins over a folder of that name, and that over a published one.

    A name with `hf:` before it is fetched from the Hugging Face Hub, unless it is in its cache.

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
        raise CheckpointError(f"{name} is not here yet: crystallm models --fetch {name}")
    names = ", ".join(list_models()) or "none"
    raise CheckpointError(f"no model {name!r}: give a path, hf:org/name, or a bundled name ({names})")


def language_of(path_or_name: str | os.PathLike[str]) -> str:
    """The name of the language that a model writes; reads no weights.

    Raises:
        CheckpointError: there is no such model, or its config is damaged.
    """
    path = find(path_or_name)
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        content = read_json(path / CONFIG_FILE)
        if huggingface.is_theirs(content):
            return huggingface.language_of(content)
        return parse_config(content, path / CONFIG_FILE).language
    return "cif"  # what published files write


def list_models() -> list[str]:
    """Names of the models that the package brings along, sorted."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{CONFIG_FILE}"))


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> GPT:
    """Read a network from a folder of ours or in Hugging Face's form, or a published `ckpt.pt`.

    It is ready for evaluation.

    Args:
        path: such a folder or file, a folder with a `ckpt.pt` in it, or an archive of one.
        device: `auto` takes a GPU where there is one.
        dtype: of the loaded weights; `auto` is float32, whatever they are stored in.

    Raises:
        CheckpointError: missing path, truncated or foreign file, wrong shapes or keys, unknown config keys.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"no weights at {str(path)!r}: give a folder with {CONFIG_FILE}, or a {PUBLISHED_FILE}"
        )
    if path.is_dir() and not (path / CONFIG_FILE).is_file() and (path / PUBLISHED_FILE).is_file():
        path /= PUBLISHED_FILE
    where, kind = resolve_device(device), resolve_dtype(dtype)
    if path.is_file() and path.name.endswith(ARCHIVES):
        with tempfile.TemporaryDirectory() as place:
            return build(*read_published(_unpacked(path, Path(place))), path, where, kind)
    config, state = read_folder(path) if path.is_dir() else read_published(path)
    return build(config, state, path, where, kind)


def _unpacked(archive: Path, place: Path) -> Path:
    """The `ckpt.pt` of a published archive, in a folder; nothing else of it is unpacked."""
    target = place / PUBLISHED_FILE
    try:
        with tarfile.open(archive) as content:
            for member in content:
                if member.isfile() and member.name.rsplit("/", maxsplit=1)[-1] == PUBLISHED_FILE:
                    stream = content.extractfile(member)
                    if stream is not None:
                        with stream, target.open("wb") as file:
                            shutil.copyfileobj(stream, file, 1 << 20)
                        return target
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise CheckpointError(f"{archive} cannot be read ({error}): fetch it again") from error
    raise CheckpointError(f"{archive} holds no {PUBLISHED_FILE}: not a published model")
