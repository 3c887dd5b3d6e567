"""Models by name and path: golden logits of published files, errors."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from crystallm.errors import CheckpointError, InputError
from crystallm.models import load as models_load
from crystallm.models.folder import save
from crystallm.models.load import list_models, load, load_model, open_model
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
    with pytest.raises(InputError, match="no such dtype"):
        load(folder, dtype="int3")


def test_the_weights_of_an_open_model_are_read_when_they_are_used() -> None:
    calls: list[str] = []
    model = open_model("default", device="cpu", before=lambda: calls.append("read"))
    assert (model.name, model.config.language, calls) == ("default", "orbits", [])
    assert model.network is model.network
    assert calls == ["read"]
    assert model.fingerprint == load_model("default", device="cpu").fingerprint


def test_damaged_weights_of_an_open_model_are_refused_when_they_are_used(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models_load.WEIGHTS / "default", tmp_path / "model"))
    (shard,) = folder.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:1000])
    model = open_model(folder)
    with pytest.raises(CheckpointError, match="is damaged"):
        _ = model.network


def test_an_open_model_refuses_at_once_what_needs_no_weights(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="the network has 90 tokens"):
        open_model(folder)
    with pytest.raises(CheckpointError, match="no model 'nowhere'"):
        open_model("nowhere")
    with pytest.raises(InputError, match="no such device"):
        open_model("default", device="abacus")
    with pytest.raises(InputError, match="no such dtype"):
        open_model("default", dtype="int3")


def test_a_published_file_is_read_when_it_is_opened() -> None:
    calls: list[str] = []
    model = open_model(GOLDEN / "checkpoint_bias", before=lambda: calls.append("read"))
    assert (model.config.n_embd, calls) == (48, ["read"])


def test_devices_and_archives_that_unpack_to_far_more_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/dev/zero").exists():
        with pytest.raises(CheckpointError, match="a device or a pipe"):
            load("/dev/zero")
    monkeypatch.setattr("crystallm.models.load._FREE_BYTES", 10_000)
    (tmp_path / "ckpt.pt").write_bytes(bytes(1_000_000))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ckpt.pt", "model/ckpt.pt")
    with pytest.raises(CheckpointError, match="unpacks to more than 20 times its size"):
        load(tmp_path / "model.tar.gz")


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
