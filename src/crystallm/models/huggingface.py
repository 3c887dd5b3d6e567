"""Write and read models in Hugging Face's form: GPT2LMHeadModel or LlamaForCausalLM of `transformers`.

A folder holds `config.json` (ours under the key `crystallm`), `model.safetensors`, `tokenizer.json` and
`tokenizer_config.json` (see `huggingface_tokenizer`), `generation_config.json`, and README.md, the model
card. vLLM, TGI and PEFT load it unchanged. Their GPT-2 always has biases: where ours has none, zeros are
written, and zeros are dropped on reading.

    ours                     GPT-2 (stored [in, out])   Llama
    transformer.wte          transformer.wte            model.embed_tokens
    h.i.attn.c_attn          attn.c_attn                self_attn.q_proj, k_proj, v_proj
    h.i.mlp.c_fc             mlp.c_fc                   mlp.gate_proj, up_proj

Does not depend on transformers.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from crystallm.errors import CheckpointError, CrystallmError, InputError, one_line
from crystallm.models.stored_config import CONFIG_FILE, read_json
from crystallm.network.config import LAYER_NORM_EPS, MAX_LAYERS, ROTARY_BASE, ModelConfig
from crystallm.options import error_line
from crystallm.storage.files import write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import Tensor

    from crystallm.models.model import Model

WEIGHTS_FILE = "model.safetensors"
OWN = "crystallm"
"""Key of our own config."""
LAYERS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def write(model: Model, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> Path:
    """Write a model in Hugging Face's form.

    Args:
        model: of any form and language.
        folder: created; must be missing or empty.
        dtype: of the stored weights; unchanged if None.

    Returns:
        The folder.

    Raises:
        CheckpointError: the folder is not empty, or cannot be written.
        InputError: the model has conditions, which neither form can hold.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from crystallm.models import huggingface_tokenizer, model_card

    if model.config.condition_scales:
        raise InputError(
            f"the model {model.name!r} has conditions ({', '.join(model.config.conditions)}), which "
            "the forms of GPT-2 and Llama lack: share its folder, or convert it with --to safetensors"
        )
    folder = Path(folder)
    is_new = not folder.exists()
    if not is_new and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists: choose another folder")
    state = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).clone().contiguous()
        for name, tensor in _hf_state(dict(model.network.named_parameters()), model.config).items()
    }
    special = huggingface_tokenizer.special(model.language)
    ids = {token: i for i, token in enumerate(model.language.vocabulary())}
    named = {f"{role}_id": ids[token] for role, token in special.items() if role != "unk_token"}
    stored = str(next(iter(state.values())).dtype).removeprefix("torch.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / WEIGHTS_FILE).chmod(0o644)
        write_json(folder / CONFIG_FILE, _hf_config(model.config) | named | {"torch_dtype": stored})
        write_json(folder / "generation_config.json", {"do_sample": True, "top_k": 10, **named})
        write_json(folder / "tokenizer.json", huggingface_tokenizer.content(model.language))
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_max_length": model.config.context,
                **special,
            },
        )
        write_json(folder / "card.json", model.card)
        (folder / "README.md").write_text(model_card.markdown(model), encoding="utf-8")
    except BaseException as error:
        _remove_content(folder, is_new)
        if not isinstance(error, (OSError, CrystallmError, SafetensorError)):
            raise
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder} cannot be written: {reason}") from error
    return folder


def _remove_content(folder: Path, is_new: bool) -> None:
    """Remove what was written into a folder that was missing or empty."""
    for path in folder.glob("*"):
        path.unlink(missing_ok=True)
    if is_new:
        with contextlib.suppress(OSError):
            folder.rmdir()


def read(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read config and state dict, in our names, from a folder in Hugging Face's form.

    Raises:
        CheckpointError: it is damaged, or neither a GPT-2 nor a Llama that our network can represent.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(folder / CONFIG_FILE)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file: pickled weights are not read")
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            state |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): fetch the folder again") from error
    try:
        ours, network = _our_state(config, state)
    except KeyError as error:
        raise CheckpointError(f"{folder} lacks {error}: not the weights that its config describes") from None
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:  # values of the wrong kind
        why = error_line(error) if isinstance(error, ValidationError) else one_line(error)
        raise CheckpointError(f"{folder / CONFIG_FILE} describes no network of ours: {why}") from error
    return network, ours


# --- to Hugging Face ---


def _hf_config(config: ModelConfig) -> dict[str, Any]:
    own = {OWN: config.content()}
    if config.form == "llama":
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": config.vocab_size,
            "hidden_size": config.n_embd,
            "intermediate_size": _hidden_size(config),
            "num_hidden_layers": config.n_layer,
            "num_attention_heads": config.n_head,
            "num_key_value_heads": config.n_head,
            "hidden_act": "silu",
            "max_position_embeddings": config.context,
            "rms_norm_eps": LAYER_NORM_EPS,
            "rope_theta": ROTARY_BASE,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            **own,
        }
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPS,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "tie_word_embeddings": True,
        **own,
    }


def _hidden_size(config: ModelConfig) -> int:
    """Return the hidden width of `transformer.SwiGLU`."""
    return 64 * max(1, round(8 * config.n_embd / (3 * 64)))


def _hf_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Convert a state dict to the names and shapes of Hugging Face's classes, without the tied head."""
    theirs: dict[str, Tensor] = {}
    if config.form == "llama":
        theirs["model.embed_tokens.weight"] = state["transformer.wte.weight"]
        theirs["model.norm.weight"] = state["transformer.ln_f.weight"]
        for i in range(config.n_layer):
            ours, layer = f"transformer.h.{i}", f"model.layers.{i}"
            theirs[f"{layer}.input_layernorm.weight"] = state[f"{ours}.ln_1.weight"]
            theirs[f"{layer}.post_attention_layernorm.weight"] = state[f"{ours}.ln_2.weight"]
            parts = state[f"{ours}.attn.c_attn.weight"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                theirs[f"{layer}.self_attn.{name}.weight"] = part
            theirs[f"{layer}.self_attn.o_proj.weight"] = state[f"{ours}.attn.c_proj.weight"]
            gate, up = state[f"{ours}.mlp.c_fc.weight"].chunk(2)
            theirs |= {f"{layer}.mlp.gate_proj.weight": gate, f"{layer}.mlp.up_proj.weight": up}
            theirs[f"{layer}.mlp.down_proj.weight"] = state[f"{ours}.mlp.c_proj.weight"]
        return theirs
    for name, tensor in state.items():
        theirs[name] = tensor.t() if _is_layer(name) else tensor
        bias = f"{name.removesuffix('weight')}bias"
        if name.endswith(".weight") and ".wte" not in name and ".wpe" not in name and bias not in state:
            theirs[bias] = torch.zeros(tensor.shape[0], dtype=tensor.dtype)
    return theirs


def _is_layer(name: str) -> bool:
    """Return whether a tensor is the weight of a linear layer, which GPT-2 stores as [in, out]."""
    return name.endswith(tuple(f"{layer}.weight" for layer in LAYERS))


# --- from Hugging Face ---


def _our_state(config: Mapping[str, Any], state: dict[str, Tensor]) -> tuple[dict[str, Tensor], ModelConfig]:
    """Convert a state dict and its config to our names and shapes."""
    model_type = config["model_type"]
    if model_type not in ("gpt2", "llama"):
        raise CheckpointError(f"model_type {model_type!r} is not supported: gpt2 and llama are")
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}
    head = state.pop("lm_head.weight", None)
    ours, shape = _from_gpt2(config, state) if model_type == "gpt2" else _from_llama(config, state)
    embeddings = ours["transformer.wte.weight"]
    if head is not None and not torch.equal(head, embeddings):
        raise CheckpointError("lm_head.weight differs from the token embeddings, but this network ties them")
    _check_config(config, {"vocab_size": embeddings.shape[0]})
    own = dict(config.get(OWN) or {})
    fields = {
        "language": language_of(config),
        "vocab_size": embeddings.shape[0],
        "dropout": own.get("dropout", config.get("resid_pdrop", 0.0)),
        **shape,
    }
    return {name: tensor.contiguous() for name, tensor in ours.items()}, ModelConfig.model_validate(fields)


def _from_gpt2(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict in our names, and the shape of the network."""
    # The names of a trunk without head (GPT2Model) lack the prefix.
    state = {n if n.startswith("transformer.") else f"transformer.{n}": t for n, t in state.items()}
    state = {n: t for n, t in state.items() if not n.endswith((".attn.bias", ".attn.masked_bias"))}
    ours = {name: tensor.t() if _is_layer(name) else tensor for name, tensor in state.items()}
    bias = any(bool(tensor.any()) for name, tensor in ours.items() if name.endswith(".bias"))
    if not bias:
        ours = {name: tensor for name, tensor in ours.items() if not name.endswith(".bias")}
    _check_config(config, {"activation_function": "gelu_new", "layer_norm_epsilon": LAYER_NORM_EPS})
    shape = {name: config[name] for name in ("n_layer", "n_head", "n_embd")}
    return ours, {"form": "gpt2", "context": config["n_positions"], "bias": bias, **shape}


def _from_llama(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict in our names, and the shape of the network."""
    shape = {
        "form": "llama",
        "context": config["max_position_embeddings"],
        "n_layer": min(int(config["num_hidden_layers"]), MAX_LAYERS + 1),  # more are refused below
        "n_head": config["num_attention_heads"],
        "n_embd": config["hidden_size"],
        "bias": False,
    }
    _check_config(
        config,
        {
            "num_key_value_heads": shape["n_head"],
            "rms_norm_eps": LAYER_NORM_EPS,
            "hidden_act": "silu",
            "rope_theta": ROTARY_BASE,
        },
    )
    left = {name: tensor for name, tensor in state.items() if not name.endswith("rotary_emb.inv_freq")}
    converted = {
        "transformer.wte.weight": left.pop("model.embed_tokens.weight"),
        "transformer.ln_f.weight": left.pop("model.norm.weight"),
    }
    for i in range(int(shape["n_layer"])):
        ours, theirs = f"transformer.h.{i}", f"model.layers.{i}"
        converted[f"{ours}.ln_1.weight"] = left.pop(f"{theirs}.input_layernorm.weight")
        converted[f"{ours}.ln_2.weight"] = left.pop(f"{theirs}.post_attention_layernorm.weight")
        parts = [left.pop(f"{theirs}.self_attn.{name}.weight") for name in ("q_proj", "k_proj", "v_proj")]
        converted[f"{ours}.attn.c_attn.weight"] = torch.cat(parts)
        converted[f"{ours}.attn.c_proj.weight"] = left.pop(f"{theirs}.self_attn.o_proj.weight")
        gate_up = [left.pop(f"{theirs}.mlp.{name}.weight") for name in ("gate_proj", "up_proj")]
        converted[f"{ours}.mlp.c_fc.weight"] = torch.cat(gate_up)
        converted[f"{ours}.mlp.c_proj.weight"] = left.pop(f"{theirs}.mlp.down_proj.weight")
    if left:
        layers = f"a Llama of {shape['n_layer']} layers"
        raise CheckpointError(f"it also holds {min(left)}, which {layers} has not")
    return converted, shape


def _check_config(config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a value differs from that of our network; missing values are as expected."""
    rope = (config.get("rope_parameters") or {}).get("rope_theta", ROTARY_BASE)
    given = {"rope_theta": rope, **config}
    for name, value in expected.items():
        if name in given and given[name] != value:
            raise CheckpointError(f"{name} is {given[name]!r}: our network has {value!r}")


def language_of(config: Mapping[str, Any]) -> str:
    """Return the name of the language of a config, from our own fields or the vocabulary size.

    Raises:
        CheckpointError: no language has this vocabulary size.
    """
    from crystallm.language import NAMES, get_language

    own = config.get(OWN)
    if isinstance(own, dict) and own.get("language"):
        return str(own["language"])
    n_tokens = int(config.get("vocab_size") or 0)
    for name in NAMES:
        if len(get_language(name).vocabulary()) == n_tokens:
            return name
    raise CheckpointError(f"no language has {n_tokens} tokens: the model is neither {' nor '.join(NAMES)}")
