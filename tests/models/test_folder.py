"""Model folders: round trip, shards, atomic replacement, damage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import SafetensorError

from crystallm.errors import CheckpointError
from crystallm.models import folder as models_folder
from crystallm.models.folder import save
from crystallm.models.load import load
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT

if TYPE_CHECKING:
    from pathlib import Path


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


def one_line(error: pytest.ExceptionInfo[CheckpointError]) -> bool:
    return "\n" not in str(error.value)


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


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("crystallm.models.folder.write_json", OSError(28, "No space left on device")),
        ("safetensors.torch.save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
    ],
)
def test_a_save_that_fails_leaves_the_old_weights_and_no_rest(
    network: GPT, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, full)
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
    refused("is not valid JSON")
    (folder / "config.json").write_text(config.replace('"n_layer": 2', '"n_layer": 3'))
    refused("has the weights of 2 layers, its config 3")
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors.index.json").write_text(index.replace("ln_1.weight", "ln_9.weight"))
    refused("index and shards disagree")
    (folder / "model.safetensors.index.json").write_text(index.replace("model-00001", "../model-00001"))
    refused("does not list the shard")
    (folder / "model.safetensors.index.json").unlink()
    refused("cannot be read")
    (folder / "config.json").unlink()
    refused("not a folder of weights")
