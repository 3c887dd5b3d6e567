"""Weights survive the disk; whatever else lies there is refused in one line and runs nothing."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from crystallm.errors import CheckpointError, InputError
from crystallm.models import folder as models_folder
from crystallm.models import load as models_load
from crystallm.models.folder import save
from crystallm.models.load import list_models, load, load_model
from crystallm.models.model import Model
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def network() -> GPT:
    torch.manual_seed(0)
    config = ModelConfig(
        language="orbits", vocab_size=90, context=32, n_layer=2, n_head=2, n_embd=32, bias=True
    )
    return GPT(config).eval()


@pytest.fixture
def folder(network: GPT, tmp_path: Path) -> Path:
    return save(network, tmp_path / "weights", card={"licence": "MIT"})


@pytest.fixture
def published() -> dict[str, Any]:
    """The content of a published file, to be broken and written again."""
    content: dict[str, Any] = torch.load(GOLDEN / "checkpoint_bias" / "ckpt.pt", weights_only=True)
    return content


def one_line(error: pytest.ExceptionInfo[CheckpointError]) -> bool:
    return "\n" not in str(error.value)


@torch.no_grad()
@pytest.mark.parametrize("name", ["checkpoint_nobias", "checkpoint_bias"])
def test_published_networks_compute_the_originals_logits(name: str, tmp_path: Path) -> None:
    network = load(GOLDEN / name / "ckpt.pt", device="cpu")
    case = json.loads((GOLDEN / name / "logits.json").read_text())
    expected = torch.tensor(case["logits"])  # (10, V), at every 20th position
    logits = network(torch.tensor([case["ids"]]))[0, ::20]
    assert (logits - expected).abs().max() < 1e-4
    assert network.config.language == "cif"
    again = load(save(network, tmp_path / "ours"), device="cpu")
    assert again.config == network.config
    assert torch.equal(again(torch.tensor([case["ids"]]))[0, ::20], logits)


def test_a_folder_with_a_published_file_in_it_is_enough() -> None:
    assert load(GOLDEN / "checkpoint_bias").config.n_embd == 48


def test_prefixes_and_mask_buffers_of_published_files_are_taken_off(
    published: dict[str, Any], tmp_path: Path
) -> None:
    state = {f"_orig_mod.{name}": tensor for name, tensor in published["model"].items()}
    state["_orig_mod.transformer.h.0.attn.bias"] = torch.ones(1, 1, 256, 256)
    torch.save({**published, "model": state}, tmp_path / "ckpt.pt")
    plain = load(GOLDEN / "checkpoint_bias" / "ckpt.pt").state_dict()
    assert all(
        torch.equal(tensor, plain[name]) for name, tensor in load(tmp_path / "ckpt.pt").state_dict().items()
    )


def test_a_saved_network_comes_back_equal(network: GPT, folder: Path) -> None:
    again = load(folder)
    assert not again.training
    assert again.lm_head.weight is again.transformer.wte.weight
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name])


def test_bfloat16_halves_the_files_and_loads_as_either(network: GPT, folder: Path, tmp_path: Path) -> None:
    half = save(network, tmp_path / "half", dtype=torch.bfloat16)
    sizes = [sum(p.stat().st_size for p in f.glob("*.safetensors")) for f in (half, folder)]
    assert sizes[0] < 0.6 * sizes[1]
    assert load(half).transformer.wte.weight.dtype == torch.float32
    stored = load(half, dtype="bfloat16").transformer.wte.weight
    assert torch.equal(stored, network.transformer.wte.weight.bfloat16())


def test_loading_draws_no_random_number(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load(folder)
    assert torch.equal(torch.rand(3), expected)


def test_shards_stay_below_their_limit(network: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_folder, "SHARD_BYTES", 12_000)
    monkeypatch.setattr(models_folder, "_HEADER_BYTES", 2_000)
    folder = save(network, tmp_path / "many")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 5
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all(shard.stat().st_size <= 12_000 for shard in shards)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    # The largest tensor, 128 x 32 numbers of 4 bytes, is larger than a shard.
    assert {"transformer.h.0.mlp.c_fc.weight#1of2", "transformer.h.0.mlp.c_fc.weight#2of2"} <= set(
        index["weight_map"]
    )
    again = dict(load(folder).named_parameters())
    assert all(torch.equal(parameter, again[name]) for name, parameter in network.named_parameters())


def test_the_default_limit_is_15_mb(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = GPT(
            ModelConfig(language="x", vocab_size=371, n_layer=2, n_head=16, n_embd=1024, context=64)
        )
    network.to_empty(device="cpu")
    shards = list(save(network, tmp_path / "large").glob("*.safetensors"))
    assert max(shard.stat().st_size for shard in shards) <= 15_000_000


def test_saving_again_replaces_weights_and_keeps_what_lies_beside(network: GPT, folder: Path) -> None:
    (folder / "recipe.yaml").write_text("lr: 1\n")
    torch.manual_seed(1)
    other = GPT(network.config)
    save(other, folder)
    assert torch.equal(load(folder).transformer.wte.weight, other.transformer.wte.weight)
    assert (folder / "recipe.yaml").read_text() == "lr: 1\n"
    assert json.loads((folder / "card.json").read_text()) == {"licence": "MIT"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_save_that_fails_leaves_the_old_weights_and_no_rest(
    network: GPT, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models_folder, "_write_json", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save(network, folder)
    assert load(folder).config == network.config
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_other_peoples_folders_are_not_overwritten(network: GPT, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match="holds no model"):
        save(network, tmp_path)
    with pytest.raises(CheckpointError, match="holds no model"):
        save(network, tmp_path / "thesis.tex")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(network, tmp_path / "thesis.tex" / "weights")


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    how: str, published: dict[str, Any], tmp_path: Path
) -> None:
    mark, file = tmp_path / "ran", tmp_path / "ckpt.pt"
    content = {**published, "config": Bomb(mark)}
    if how == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match="no checkpoint of plain tensors") as error:
        load(file)
    assert one_line(error)
    assert not mark.exists()
    assert zipfile.is_zipfile(file) == (how == "torch")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04N.", bytes(range(256)) * 20])
def test_files_that_are_no_checkpoint_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ckpt.pt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load(file)
    assert one_line(error)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_published_file_is_refused(share: float, tmp_path: Path) -> None:
    whole = (GOLDEN / "checkpoint_bias" / "ckpt.pt").read_bytes()
    (tmp_path / "ckpt.pt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError):
        load(tmp_path / "ckpt.pt")


def test_wrong_states_are_named(published: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "ckpt.pt"

    def refused(match: str, **changes: Any) -> None:
        state = {**published["model"], **changes.pop("state", {})}
        state = {name: tensor for name, tensor in state.items() if tensor is not None}
        torch.save({**published, "model": state, **changes}, file)
        with pytest.raises(CheckpointError, match=match) as error:
            load(file)
        assert one_line(error)

    weight = "transformer.h.1.mlp.c_fc.weight"
    refused(f"lacks {weight}", state={weight: None})
    refused("also holds transformer.extra", state={"transformer.extra": torch.zeros(2)})
    refused(r"c_fc.weight has shape \(48, 192\)", state={weight: torch.zeros(48, 192)})
    refused("not floating-point", state={weight: torch.zeros(192, 48, dtype=torch.int64)})
    refused("is no tensor", state={weight: "weights"})
    refused("lm_head.weight differs", state={"lm_head.weight": torch.zeros(371, 48)})
    arguments = published["model_args"]
    refused("rotary", model_args={**arguments, "rotary": True})
    refused("must be a multiple of n_head", model_args={**arguments, "n_head": 5})
    refused("also holds .* and 11 more", model_args={**arguments, "n_layer": 1})
    refused("no 'model' and 'model_args'", model_args=None)


def test_a_damaged_folder_is_refused(folder: Path) -> None:
    shard = folder / "model-00001-of-00001.safetensors"
    whole, config = shard.read_bytes(), (folder / "config.json").read_text()
    index = (folder / "model.safetensors.index.json").read_text()

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match) as error:
            load(folder)
        assert one_line(error)

    shard.write_bytes(whole[: len(whole) // 2])
    refused("is damaged")
    shard.write_bytes(b"")
    refused("is damaged")
    shard.unlink()
    refused("lacks the shard model-00001-of-00001")
    shard.write_bytes(whole)
    (folder / "config.json").write_text(config.replace('"bias"', '"bia"'))
    refused("bia")
    (folder / "config.json").write_text("{")
    refused("is no JSON")
    (folder / "config.json").write_text(config.replace('"n_layer": 2', '"n_layer": 3'))
    refused("lacks transformer.h.2")
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors.index.json").write_text(index.replace("ln_1.weight", "ln_9.weight"))
    refused("index and shards disagree")
    (folder / "model.safetensors.index.json").write_text(index.replace("model-00001", "../model-00001"))
    refused("does not say which shard")
    (folder / "model.safetensors.index.json").unlink()
    refused("cannot be read")
    (folder / "config.json").unlink()
    refused("not a folder of weights")


def test_missing_weights_and_names_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights at"):
        load(tmp_path / "nowhere")
    with pytest.raises(
        CheckpointError, match="no model 'nowhere': give a path, hf:org/name, or a bundled name"
    ):
        load_model("nowhere")
    with pytest.raises(InputError, match="no such device"):
        load(folder, device="abacus")
    with pytest.raises(InputError, match="device 'cuda:99' cannot be used"):
        load(folder, device="cuda:99")
    (tmp_path / "run").mkdir()
    shutil.copytree(folder, tmp_path / "run" / "model")
    with pytest.raises(CheckpointError, match=r"run holds no config\.json: name .*run/model$"):
        load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no such dtype"):
        load(folder, dtype="int3")


def test_a_model_is_a_network_with_its_language() -> None:
    model = load_model(GOLDEN / "checkpoint_nobias")
    assert isinstance(model, Model)
    assert (model.name, model.language.name, model.card) == ("checkpoint_nobias", "cif", {})
    assert model.network.config is model.config
    assert len(model.language.vocabulary()) == model.config.vocab_size


def test_weights_of_another_vocabulary_are_refused(network: GPT, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="the network has 90 tokens, its language 'orbits' has"):
        load_model(folder)


def test_bundled_models_are_listed_by_name(
    network: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_load, "WEIGHTS", tmp_path / "bundled")
    assert list_models() == []
    published = load(GOLDEN / "checkpoint_bias")
    save(published, tmp_path / "bundled" / "tiny", card={"data": "none"})
    save(published, tmp_path / "bundled" / "default")
    assert list_models() == ["default", "tiny"]
    model = load_model("tiny")
    assert (model.name, model.card) == ("tiny", {"data": "none"})
    assert load_model().name == "default"
