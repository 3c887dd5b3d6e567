"""Hugging Face's form: round trip, greedy tokens of transformers, errors."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crystallm.cli import app
from crystallm.errors import CheckpointError, CrystallmError
from crystallm.models import huggingface, load
from crystallm.sampling import sample as sampling_sample
from crystallm.sampling import sequence
from random_models import random_model

with_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


FORMS = [("orbits", "llama", False), ("orbits", "gpt2", False), ("cif", "gpt2", False), ("cif", "gpt2", True)]


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: "-".join(map(str, form)))
def pair(request, tmp_path_factory):
    model = random_model(*request.param)
    return model, huggingface.write(model, tmp_path_factory.mktemp("hf") / "model")


def test_a_network_comes_back_as_it_was(pair, tmp_path):
    model, folder = pair
    again = load.load_model(folder, device="cpu")
    assert again.config == model.config
    assert again.card == model.card
    before = dict(model.network.named_parameters())
    for name, parameter in again.network.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert load.language_of(folder) == model.language.name
    # Without our part of the config, as where others have made it: the same but for what only we know.
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    content = json.loads((bare / "config.json").read_text())
    del content["crystallm"]
    (bare / "config.json").write_text(json.dumps(content))
    assert load.load_model(bare, device="cpu").config == model.config


@with_transformers
def test_transformers_writes_the_same_tokens_greedily(pair):
    """20 prompts, token for token, with the network and the tokenizer that transformers makes of it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, folder = pair
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    kind = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[model.config.form]
    assert type(network).__name__ == kind
    written = AutoTokenizer.from_pretrained(folder)
    compositions = [[(metal, n), ("O", 2 * n)] for n in range(1, 11) for metal in ("Na", "Ti")]
    # The end of the published language is two tokens, at which transformers does not stop.
    end = model.language.end_ids if model.language.name == "orbits" else (-1,)
    prompts = [model.language.prompt(composition) for composition in compositions]
    samples = sampling_sample.sample(
        model.network, prompts, stop=sequence.Stop(end), temperature=0, top_k=None, max_new_tokens=40
    )
    for prompt, sample in zip(prompts, samples, strict=True):
        ids = written(model.language.text(prompt), return_tensors="pt", add_special_tokens=False).input_ids
        assert ids[0].tolist() == list(prompt)
        with torch.no_grad():
            found = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=40,
                pad_token_id=0,
            )
        assert found[0].tolist() == list(sample.ids)
    logits = network(torch.tensor([prompts[0]])).logits
    assert torch.allclose(logits, model.network(torch.tensor([prompts[0]])), atol=1e-4)


def test_the_published_golden_weights_go_there_and_back(tmp_path):
    golden = load.load_model(GOLDEN / "checkpoint_bias" / "ckpt.pt", device="cpu")
    folder = huggingface.write(golden, tmp_path / "hf")
    place = str(tmp_path / "back")
    assert app.run(["convert", str(folder), "--to", "safetensors", "--out", place, "--quiet"]) == 0
    back = load.load_model(place, device="cpu")
    ids = torch.arange(20)[None]
    assert torch.equal(back.network(ids), golden.network(ids))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "opt"}, "is not supported"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1"),
        ({"rope_theta": 5e5}, "rope_theta is 500000.0"),
        ({"crystallm": {"language": "klingon"}}, "no language 'klingon'"),
        ({"vocab_size": 7}, "vocab_size is 7: our network has"),
        ({"vocab_size": -5}, "vocab_size is -5"),
        ({"num_hidden_layers": -1}, "which a Llama of -1 layers has not"),
        ({"num_hidden_layers": "1"}, r"also holds model\.layers\.1\..*, which a Llama of 1 layers has not"),
        ({"num_hidden_layers": 10**9}, "lacks 'model.layers.2"),
        ({"n_embd": 5, "hidden_size": "wide"}, "describes no network of ours"),
        ({"num_hidden_layers": 3}, "lacks 'model.layers.2"),
    ],
)
def test_foreign_networks_are_refused(tmp_path, change, said):
    folder = huggingface.write(random_model("orbits", "llama"), tmp_path / "m")
    content = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CrystallmError, match=said):
        load.load_model(folder, device="cpu")


def test_weights_that_our_network_has_no_place_for_are_refused(tmp_path):
    folder = huggingface.write(random_model("orbits", "llama"), tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.self_attn.q_proj.bias"] = torch.ones(4)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"also holds model\.layers\.0\.self_attn\.q_proj\.bias"):
        load.load_model(folder, device="cpu")


def test_a_full_disk_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_):
        raise CrystallmError("the disk is full")

    monkeypatch.setattr(huggingface, "write_json", full)
    with pytest.raises(CheckpointError, match="cannot be written: the disk is full"):
        huggingface.write(random_model("orbits", "gpt2"), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_damaged_folders_are_refused(tmp_path):
    model = random_model("orbits", "gpt2")
    folder = huggingface.write(model, tmp_path / "m")
    with pytest.raises(CheckpointError, match="exists"):
        huggingface.write(model, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load.load_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are not read"):
        load.load_model(folder)
