"""Build a network from a state dict, after checks; read ckpt.pt files without running pickles."""

from __future__ import annotations

import contextlib
import re
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from crystallm.errors import CheckpointError
from crystallm.models.stored_config import parse_config
from crystallm.network.transformer import GPT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from crystallm.network.config import ModelConfig


# Prefixes of parameter names from torch.compile and data-parallel training.
WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.)+")

# Causal masks that old versions of the published code stored as buffers; not needed here.
_MASK_BUFFER = re.compile(r"transformer\.h\.\d+\.attn\.(?:bias|masked_bias)")
_FILLING = {"normal_", "uniform_", "kaiming_uniform_", "zeros_", "ones_", "fill_"}
_LAYER = re.compile(r"transformer\.h\.(\d+)\.")
_HEAD, _TOKENS = "lm_head.weight", "transformer.wte.weight"


class _SkipInit(TorchFunctionMode):
    """Skips the initialization of weights: on meta tensors it imports half of torch, which takes a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a torch function, unless it fills a tensor."""
        options = kwargs or {}
        if func.__name__ in _FILLING:
            return args[0] if args else options["tensor"]
        return func(*args, **options)


def build(
    config: ModelConfig, state: dict[str, Tensor], path: Path, device: torch.device, dtype: torch.dtype
) -> GPT:
    """Build a network in evaluation mode from a state dict.

    Args:
        state: tensors by the names of `GPT`; the tied head may be missing.

    Raises:
        CheckpointError: names, shapes or dtypes do not fit the config.
    """
    _check_layers(config, state, path)
    # On the meta device: allocates no memory for weights that may not fit, and draws no random numbers.
    with torch.device("meta"), _SkipInit():
        network = GPT(config)
    _check_state(dict(network.named_parameters()), state, path)
    filled = {
        name: state[name].to(device=device, dtype=dtype, copy=True) for name, _ in network.named_parameters()
    }
    network.load_state_dict(filled | {_HEAD: filled[_TOKENS]}, assign=True)
    network.lm_head.weight = network.transformer.wte.weight  # assigning unties the two
    if device.type == "cpu" and dtype == torch.float32:
        network.pack()
    return network.eval()


def _check_layers(config: ModelConfig, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError if the weights have another number of layers, before any is built."""
    found = {match[1] for name in state if (match := _LAYER.match(name))}
    if len(found) != config.n_layer:
        raise CheckpointError(f"{path} has the weights of {len(found)} layers, its config {config.n_layer}")


def _check_state(expected: Mapping[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    """Raise CheckpointError if a state dict does not fit; drops the tied head from it."""
    if _HEAD in state and _TOKENS in state:
        head = state.pop(_HEAD)
        if head.shape != state[_TOKENS].shape or not torch.equal(head, state[_TOKENS]):
            raise CheckpointError(f"{path}: {_HEAD} differs from {_TOKENS}, but this network ties the two")
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


def _check_packed(path: Path) -> None:
    """Raise CheckpointError if a file unpacks to more than its size: torch stores its tensors unpacked."""
    size = 0
    with contextlib.suppress(zipfile.BadZipFile, OSError, ValueError), zipfile.ZipFile(path) as content:
        size = sum(member.file_size for member in content.infolist())
    if size > path.stat().st_size:
        raise CheckpointError(f"{path} unpacks to {size / 1e6:,.0f} MB, more than its size: not a checkpoint")


def read_published(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read config and state dict of a published `ckpt.pt`: plain data and tensors, no code is run.

    Raises:
        CheckpointError: the file is not such a checkpoint.
    """
    packed = zipfile.is_zipfile(path)
    if packed:
        _check_packed(path)
    try:
        # Memory-mapped: most of a published file is the optimizer state, which is not read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=packed)
    except Exception as error:  # of many types, depending on the content
        raise CheckpointError(
            f"{path} is not a checkpoint of plain tensors and was not loaded "
            f"({type(error).__name__}): truncated, or a pickle that would run code"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(k), dict) for k in ("model", "model_args")
    ):
        raise CheckpointError(f"{path} holds no 'model' and 'model_args': not a published checkpoint")
    arguments = dict(content["model_args"])
    if "block_size" in arguments:
        arguments["context"] = arguments.pop("block_size")
    config = parse_config({"language": "cif", **arguments}, path)
    state: dict[str, Tensor] = {}
    for key, tensor in content["model"].items():
        name = WRAPPERS.sub("", str(key))
        if _MASK_BUFFER.fullmatch(name):
            continue
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{path}: {name} is not a tensor")
        state[name] = tensor
    return config, state
