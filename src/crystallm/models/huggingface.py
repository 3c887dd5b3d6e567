"""Weights in Hugging Face's form, and back: `transformers` loads them as GPT2LMHeadModel or LlamaForCausalLM.

A folder holds `config.json` (theirs, ours under `crystallm`), `model.safetensors`, `tokenizer.json` and
`tokenizer_config.json` (see `hf_tokenizer`), `generation_config.json`, and README.md, the model card. vLLM,
TGI and PEFT take it as it is. GPT-2 there has biases always: where ours has none they are zeros, and zeros
are left out on the way back.

    ours                     GPT-2 (stored [in, out])   Llama
    transformer.wte          transformer.wte            model.embed_tokens
    h.i.attn.c_attn          attn.c_attn                self_attn.q_proj, k_proj, v_proj
    h.i.mlp.c_fc             mlp.c_fc                   mlp.gate_proj, up_proj

Needs neither transformers nor a network. Knows tensors; what tokens mean is told by the language alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crystallm.errors import CheckpointError
from crystallm.network.config import LAYER_NORM_EPS, ROTARY_BASE, ModelConfig

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import Tensor

    from crystallm.models.model import Model


CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

OWN = "crystallm"
"""The key of our own config within theirs."""

LAYERS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def is_theirs(config: Mapping[str, Any]) -> bool:
    """Whether what a config.json holds is of Hugging Face's form."""
    return "model_type" in config


def write(model: Model, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> Path:
    """Write a model in Hugging Face's form.

    Args:
        model: of either form and language.
        folder: made; must not be there, or be empty.
        dtype: of the stored weights; as they are if None.

    Returns:
        The folder.

    Raises:
        CheckpointError: the place is taken, or cannot be written.
    """
    from safetensors.torch import save_file

    from crystallm.models import huggingface_tokenizer, model_card

    place = Path(folder)
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise CheckpointError(f"{place} exists: choose another place")
    state = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).clone().contiguous()
        for name, tensor in _theirs(dict(model.network.named_parameters()), model.config).items()
    }
    special = huggingface_tokenizer.special(model.language)
    ids = {token: i for i, token in enumerate(model.language.vocabulary())}
    named = {f"{role}_id": ids[token] for role, token in special.items() if role != "unk_token"}
    stored = str(next(iter(state.values())).dtype).removeprefix("torch.")
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file(state, place / WEIGHTS_FILE, metadata={"format": "pt"})
        (place / WEIGHTS_FILE).chmod(0o644)
        _write_json(place / CONFIG_FILE, _config(model.config) | named | {"torch_dtype": stored})
        _write_json(place / "generation_config.json", {"do_sample": True, "top_k": 10, **named})
        _write_json(place / "tokenizer.json", huggingface_tokenizer.content(model.language))
        _write_json(
            place / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_max_length": model.config.context,
                **special,
            },
        )
        _write_json(place / "card.json", model.card)
        (place / "README.md").write_text(model_card.markdown(model), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{place} cannot be written: {error.strerror or error}") from error
    return place


def read(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Config and state dict, in our names, of a folder in Hugging Face's form.

    Raises:
        CheckpointError: it is damaged, no GPT-2 or Llama, or of a form that ours has not.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _read_json(folder / CONFIG_FILE)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors: pickled weights are not read")
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            state |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): fetch the folder again") from error
    try:
        ours, network = _ours(config, state)
    except KeyError as error:
        raise CheckpointError(f"{folder} lacks {error}: not the weights that its config describes") from None
    return network, ours


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --- there ---


def _config(config: ModelConfig) -> dict[str, Any]:
    own = {OWN: config.model_dump()}
    if config.form == "llama":
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": config.vocab_size,
            "hidden_size": config.n_embd,
            "intermediate_size": _hidden(config),
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


def _hidden(config: ModelConfig) -> int:
    """The inner width of the gated form; see `model.SwiGLU`."""
    return 64 * max(1, round(8 * config.n_embd / (3 * 64)))


def _theirs(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Tensors in the names and forms of GPT2LMHeadModel or LlamaForCausalLM, the tied head left out."""
    found: dict[str, Tensor] = {}
    if config.form == "llama":
        found["model.embed_tokens.weight"] = state["transformer.wte.weight"]
        found["model.norm.weight"] = state["transformer.ln_f.weight"]
        for i in range(config.n_layer):
            ours, theirs = f"transformer.h.{i}", f"model.layers.{i}"
            found[f"{theirs}.input_layernorm.weight"] = state[f"{ours}.ln_1.weight"]
            found[f"{theirs}.post_attention_layernorm.weight"] = state[f"{ours}.ln_2.weight"]
            parts = state[f"{ours}.attn.c_attn.weight"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                found[f"{theirs}.self_attn.{name}.weight"] = part
            found[f"{theirs}.self_attn.o_proj.weight"] = state[f"{ours}.attn.c_proj.weight"]
            gate, up = state[f"{ours}.mlp.c_fc.weight"].chunk(2)
            found |= {f"{theirs}.mlp.gate_proj.weight": gate, f"{theirs}.mlp.up_proj.weight": up}
            found[f"{theirs}.mlp.down_proj.weight"] = state[f"{ours}.mlp.c_proj.weight"]
        return found
    for name, tensor in state.items():
        layer = any(name.endswith(f"{place}.weight") for place in LAYERS)
        found[name] = tensor.t() if layer else tensor
        bias = f"{name.removesuffix('weight')}bias"
        if name.endswith(".weight") and ".wte" not in name and ".wpe" not in name and bias not in state:
            found[bias] = torch.zeros(tensor.shape[0], dtype=tensor.dtype)
    return found


# --- and back ---


def _ours(config: Mapping[str, Any], state: dict[str, Tensor]) -> tuple[dict[str, Tensor], ModelConfig]:
    kind = config["model_type"]
    if kind not in ("gpt2", "llama"):
        raise CheckpointError(f"a {kind!r} is neither gpt2 nor llama, the forms that are read")
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}
    embedding = state.pop("lm_head.weight", None)
    own = dict(config.get(OWN) or {})
    if kind == "gpt2":
        # The published trunk alone (GPT2Model) has its names without the prefix.
        state = {n if n.startswith("transformer.") else f"transformer.{n}": t for n, t in state.items()}
        state = {n: t for n, t in state.items() if not n.endswith((".attn.bias", ".attn.masked_bias"))}
        tokens = state["transformer.wte.weight"]
        shape = {
            "form": "gpt2", "context": config["n_positions"], "n_layer": config["n_layer"],
            "n_head": config["n_head"], "n_embd": config["n_embd"],
        }  # fmt: skip
        found = {
            name: (tensor.t() if any(name.endswith(f"{place}.weight") for place in LAYERS) else tensor)
            for name, tensor in state.items()
        }
        shape["bias"] = any(bool(t.any()) for n, t in found.items() if n.endswith(".bias"))
        if not shape["bias"]:
            found = {name: tensor for name, tensor in found.items() if not name.endswith(".bias")}
        _refuse(config, {"activation_function": "gelu_new", "layer_norm_epsilon": LAYER_NORM_EPS})
    else:
        tokens = state["model.embed_tokens.weight"]
        shape = {
            "form": "llama", "context": config["max_position_embeddings"],
            "n_layer": config["num_hidden_layers"], "n_head": config["num_attention_heads"],
            "n_embd": config["hidden_size"], "bias": False,
        }  # fmt: skip
        found = _from_llama(state, int(shape["n_layer"]))
        _refuse(
            config,
            {
                "num_key_value_heads": shape["n_head"],
                "rms_norm_eps": LAYER_NORM_EPS,
                "hidden_act": "silu",
                "rope_theta": ROTARY_BASE,
            },
        )
    if embedding is not None and not torch.equal(embedding, tokens):
        raise CheckpointError("lm_head.weight differs from the token embeddings, but the two are one here")
    found = {name: tensor.contiguous() for name, tensor in found.items()}
    given = {"language": language_of(config), "vocab_size": tokens.shape[0]}
    dropout = own.get("dropout", config.get("resid_pdrop", 0.0))
    return found, ModelConfig.model_validate(given | shape | {"dropout": dropout})


def _from_llama(state: Mapping[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    found = {
        "transformer.wte.weight": state["model.embed_tokens.weight"],
        "transformer.ln_f.weight": state["model.norm.weight"],
    }
    for i in range(n_layer):
        ours, theirs = f"transformer.h.{i}", f"model.layers.{i}"
        found[f"{ours}.ln_1.weight"] = state[f"{theirs}.input_layernorm.weight"]
        found[f"{ours}.ln_2.weight"] = state[f"{theirs}.post_attention_layernorm.weight"]
        parts = [state[f"{theirs}.self_attn.{name}.weight"] for name in ("q_proj", "k_proj", "v_proj")]
        found[f"{ours}.attn.c_attn.weight"] = torch.cat(parts)
        found[f"{ours}.attn.c_proj.weight"] = state[f"{theirs}.self_attn.o_proj.weight"]
        gated = [state[f"{theirs}.mlp.{name}.weight"] for name in ("gate_proj", "up_proj")]
        found[f"{ours}.mlp.c_fc.weight"] = torch.cat(gated)
        found[f"{ours}.mlp.c_proj.weight"] = state[f"{theirs}.mlp.down_proj.weight"]
    return found


def _refuse(config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse what our network does not do; what the config leaves out is as expected."""
    told = dict(config)
    told.setdefault("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta", ROTARY_BASE))
    for name, value in expected.items():
        if name in told and told[name] != value:
            raise CheckpointError(f"{name} is {told[name]!r}: our network has {value!r}")


def language_of(config: Mapping[str, Any]) -> str:
    """The name of the language that a config tells of, by its name or the number of tokens.

    Raises:
        CheckpointError: those of no language.
    """
    own = config.get(OWN)
    told = own.get("language") if isinstance(own, dict) else None
    return str(told) if told else _language(int(config.get("vocab_size") or 0))


def _language(n_tokens: int) -> str:
    from crystallm.language import NAMES, get_language

    for name in NAMES:
        if len(get_language(name).vocabulary()) == n_tokens:
            return name
    raise CheckpointError(f"{n_tokens} tokens are those of no language: {' and '.join(NAMES)} have others")
