"""Weights in and out: our folders of safetensors shards, the published `ckpt.pt` files, Hugging Face's form.

A folder holds `config.json` (the fields of `ModelConfig`), `model-00001-of-0000N.safetensors` shards of at
most 15 MB, `model.safetensors.index.json` (which shard holds which tensor) and perhaps `card.json` (data,
licences, figures). The tied head is stored once, as `transformer.wte.weight`. A tensor that alone is larger
than a shard is cut along its first axis into `NAME#1of2`, `NAME#2of2`.

Knows names and shapes of tensors, not what tokens mean, nor how weights are trained. No pickle is ever
written; a pickle from outside is read by a loader that builds plain data and tensors and runs nothing.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch.overrides import TorchFunctionMode

from crystallm import hf, hub, published
from crystallm.errors import CheckpointError
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from crystallm.language import Language

SHARD_BYTES = 15_000_000
_HEADER_BYTES = 200_000  # room left in each shard for the names of its tensors
CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
CARD_FILE = "card.json"
PUBLISHED_FILE = "ckpt.pt"
ARCHIVES = (".tar.gz", ".tgz", ".tar")
"""Endings of archives with a published file in them."""
_OWN_FILE = re.compile(
    r"config\.json|card\.json|model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors"
)
_PART = re.compile(r"(?P<name>.+)#(?P<part>\d+)of(?P<n_parts>\d+)")
# What wrappers put before the names: torch.compile, and data-parallel training.
_WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.)+")
# Causal masks that old versions of the published code kept as buffers; ours needs none.
_MASK_BUFFER = re.compile(r"transformer\.h\.\d+\.attn\.(?:bias|masked_bias)")
_FILLING = {"normal_", "uniform_", "kaiming_uniform_", "zeros_", "ones_", "fill_"}
_HEAD, _TOKENS = "lm_head.weight", "transformer.wte.weight"
_WEIGHTS = Path(__file__).parent / "weights"


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

    @classmethod
    def load(
        cls,
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
        from crystallm.language import get_language

        network = load(path, device=device, dtype=dtype)
        language = get_language(network.config.language)
        n_tokens = len(language.vocabulary())
        if n_tokens != network.config.vocab_size:
            raise CheckpointError(
                f"{path}: the network has {network.config.vocab_size} tokens, its language "
                f"{network.config.language!r} has {n_tokens}; use the version that wrote the weights"
            )
        card = _read_json(path / CARD_FILE) if (path / CARD_FILE).is_file() else {}
        told = str(path_or_name)
        named = path.parent == _WEIGHTS or told.startswith(hub.PREFIX) or told in published.names()
        name = told if named else path.resolve().name
        return cls(name=name, network=network, language=language, config=network.config, card=card)

    def push_to_hub(self, name: str, *, private: bool = False, token: str | None = None) -> str:
        """Put it on the Hugging Face Hub with its card; see `hub.push`."""
        return hub.push(self, name, private=private, token=token)


def load_model(
    path_or_name: str | os.PathLike[str] = "default",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> Model:
    """Load a network with its language; see `Model.load`."""
    return Model.load(path_or_name, device=device, dtype=dtype)


def find(path_or_name: str | os.PathLike[str]) -> Path:
    """Where a model lies; a bundled name wins over a folder of that name, and that over a published one.

    A name with `hf:` before it is fetched from the Hugging Face Hub, unless it is in its cache.

    Raises:
        CheckpointError: there is no such model.
    """
    name = str(path_or_name)
    if name.startswith(hub.PREFIX):
        return hub.fetch(name)
    path = _WEIGHTS / name if name in list_models() else Path(path_or_name)
    if path.exists():
        return path
    if name in published.names():
        if published.path(name).exists():
            return published.path(name)
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
        content = _read_json(path / CONFIG_FILE)
        if hf.is_theirs(content):
            return hf.language_of(content)
        return _config(content, path / CONFIG_FILE).language
    return "cif"  # what published files write


def list_models() -> list[str]:
    """Names of the models that the package brings along, sorted."""
    return sorted(path.parent.name for path in _WEIGHTS.glob(f"*/{CONFIG_FILE}"))


def save(
    network: GPT,
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network as a folder of safetensors shards.

    The folder is written beside its place and renamed at the end, so that a reader finds the old weights, the
    new ones or (for an instant) none, but never a part. An earlier folder of ours is replaced; files in it
    that are not weights, such as a recipe, are kept.

    Args:
        network: of which the config and all parameters are written.
        folder: made if missing, with its parents.
        dtype: of the stored weights, e.g. torch.bfloat16; as they are if None.
        card: written as `card.json`, if given.

    Returns:
        The folder.

    Raises:
        CheckpointError: the place is taken by something else, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / CONFIG_FILE).is_file() and not _is_empty_folder(folder):
        raise CheckpointError(f"{folder} exists and holds no model: choose another place")
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        temporary.chmod(0o755)  # mkdtemp's folders are closed to others
        _write_folder(network, temporary, dtype, card)
        if folder.exists():
            _carry_over(folder, temporary)
            old = temporary.with_name(temporary.name + ".old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


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
    where, kind = _device(device), _dtype(dtype)
    if path.is_file() and path.name.endswith(ARCHIVES):
        with tempfile.TemporaryDirectory() as place:
            return _build(*_read_published(_unpacked(path, Path(place))), path, where, kind)
    config, state = _read_folder(path) if path.is_dir() else _read_published(path)
    return _build(config, state, path, where, kind)


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


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(f"no such device: {str(device)!r}; try 'cpu', 'cuda' or 'auto'") from error
    try:
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:  # a torch that was built without, a driver that is none
        why = str(error).splitlines()[0][:80]
        raise CheckpointError(
            f"device {str(device)!r} cannot be used ({why}): try 'cpu' or 'auto'"
        ) from error
    return found


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    names = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in names:
        raise CheckpointError(f"no such dtype: {dtype!r}; use one of {', '.join(names)}")
    return names[dtype]


class _Unfilled(TorchFunctionMode):
    """Leaves first weights out: filling those without storage loads the half of torch, for a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call what was to be called, unless it fills a tensor."""
        given = kwargs or {}
        if func.__name__ in _FILLING:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def _build(
    config: ModelConfig, state: dict[str, Tensor], path: Path, device: torch.device, dtype: torch.dtype
) -> GPT:
    """Fill a network with a state dict, after a look at every name and shape."""
    # On the meta device first: no memory is taken for weights that may not fit, no random number is drawn.
    with torch.device("meta"), _Unfilled():
        network = GPT(config)
    expected = dict(network.named_parameters())
    if _HEAD in state and _TOKENS in state:
        head = state.pop(_HEAD)
        if head.shape != state[_TOKENS].shape or not torch.equal(head, state[_TOKENS]):
            raise CheckpointError(
                f"{path}: {_HEAD} differs from {_TOKENS}, but the two are one in this network"
            )
    for kind, names in (
        ("lacks", expected.keys() - state.keys()),
        ("also holds", state.keys() - expected.keys()),
    ):
        if names:
            first, rest = min(names), len(names) - 1
            more = f" and {rest} more" if rest else ""
            raise CheckpointError(
                f"{path} {kind} {first}{more}: not the weights of the network its config describes"
            )
    for name, parameter in expected.items():
        if state[name].shape != parameter.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, "
                f"the config says {tuple(parameter.shape)}"
            )
        if not state[name].is_floating_point():
            raise CheckpointError(f"{path}: {name} holds {state[name].dtype}, not floating-point numbers")
    filled = {name: state[name].to(device=device, dtype=dtype, copy=True) for name in expected}
    network.load_state_dict(filled | {_HEAD: filled[_TOKENS]}, assign=True)
    network.lm_head.weight = network.transformer.wte.weight  # assigning makes two of the one
    if device.type == "cpu" and dtype == torch.float32:
        network.pack()
    return network.eval()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return content


def _config(fields: Mapping[str, Any], path: Path) -> ModelConfig:
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        value = f" ({first['input']!r})" if where and not isinstance(first["input"], dict) else ""
        raise CheckpointError(f"{path}: {where + value + ': ' if where else ''}{first['msg']}") from error


def _read_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / CONFIG_FILE).is_file():
        trained = folder / "model"
        mend = f"name {trained}" if (trained / CONFIG_FILE).is_file() else "not a folder of weights"
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}: {mend}")
    content = _read_json(folder / CONFIG_FILE)
    if hf.is_theirs(content):
        return hf.read(folder)
    config = _config(content, folder / CONFIG_FILE)
    places = _read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(places, dict) or not all(_OWN_FILE.fullmatch(str(shard)) for shard in places.values()):
        raise CheckpointError(f"{folder / INDEX_FILE} does not say which shard holds which tensor")
    parts: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        try:
            parts.update(load_file(folder / shard))
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder} lacks the shard {shard}: fetch the folder again") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder / shard} is damaged ({error}): fetch the folder again") from error
    if parts.keys() != places.keys():
        name = min(parts.keys() ^ places.keys())
        raise CheckpointError(f"{folder}: index and shards disagree on {name}: fetch the folder again")
    return config, _join(parts, folder)


def _join(parts: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Put tensors together that were cut to fit a shard."""
    state: dict[str, Tensor] = {}
    cut: dict[str, dict[int, Tensor]] = {}
    n_parts: dict[str, int] = {}
    for name, tensor in parts.items():
        match = _PART.fullmatch(name)
        if match is None:
            state[name] = tensor
        else:
            cut.setdefault(match["name"], {})[int(match["part"])] = tensor
            n_parts[match["name"]] = int(match["n_parts"])
    for name, pieces in cut.items():
        if sorted(pieces) != list(range(1, n_parts[name] + 1)):
            raise CheckpointError(f"{folder}: {name} is not whole: fetch the folder again")
        try:
            state[name] = torch.cat([pieces[part] for part in sorted(pieces)])
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: the pieces of {name} do not fit together") from error
    return state


def _read_published(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    try:
        # Mapped, as most of a published file is the optimizer's state, which nobody asks for.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever the loader stumbles over, the file is no such checkpoint
        raise CheckpointError(
            f"{path} is no checkpoint of plain tensors and was not loaded "
            f"({type(error).__name__}): truncated, or a pickle that would run code"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(k), dict) for k in ("model", "model_args")
    ):
        raise CheckpointError(f"{path} holds no 'model' and 'model_args': not a published checkpoint")
    arguments = dict(content["model_args"])
    if "block_size" in arguments:
        arguments["context"] = arguments.pop("block_size")
    config = _config({"language": "cif", **arguments}, path)
    state: dict[str, Tensor] = {}
    for key, tensor in content["model"].items():
        name = _WRAPPERS.sub("", str(key))
        if _MASK_BUFFER.fullmatch(name):
            continue
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{path}: {name} is no tensor")
        state[name] = tensor
    return config, state


def _pieces(network: GPT, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """Parameters by name, cut where one is larger than a shard."""
    limit = SHARD_BYTES - _HEADER_BYTES
    for key, parameter in network.named_parameters():
        name = _WRAPPERS.sub("", key)
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
    for name, tensor in _pieces(network, dtype):
        if tensor.nbytes > free and shards[-1]:
            shards.append({})
            free = SHARD_BYTES - _HEADER_BYTES
        shards[-1][name] = tensor
        free -= tensor.nbytes
        total += tensor.nbytes
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)
        places.update(dict.fromkeys(shard, file))
    _write_json(folder / CONFIG_FILE, network.config.model_dump())
    _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": places})
    if card is not None:
        _write_json(folder / CARD_FILE, dict(card))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _carry_over(old: Path, new: Path) -> None:
    """Copy what lies beside the weights; an old card too, where no new one was given."""
    for path in old.iterdir():
        if (_OWN_FILE.fullmatch(path.name) and path.name != CARD_FILE) or (new / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name)
        else:
            shutil.copy2(path, new / path.name)
