"""Networks from state dicts: checks, published files, no code from pickles."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from crystallm.errors import CheckpointError
from crystallm.models.folder import save
from crystallm.models.load import load
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


def test_loading_draws_no_random_number(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load(folder)
    assert torch.equal(torch.rand(3), expected)


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
    with pytest.raises(CheckpointError, match="not a checkpoint of plain tensors") as error:
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


def test_a_packed_file_is_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(GOLDEN / "checkpoint_bias" / "ckpt.pt") as source,
        zipfile.ZipFile(tmp_path / "ckpt.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in source.namelist():
            packed.writestr(name, source.read(name))
        packed.writestr("archive/data/zeros", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="more than its size: not a checkpoint"):
        load(tmp_path / "ckpt.pt")


def test_another_number_of_layers_is_told_before_any_is_built(
    published: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crystallm.models.build.GPT", pytest.fail)
    torch.save(published | {"model_args": published["model_args"] | {"n_layer": 900}}, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=r"the weights of \d layers, its config 900"):
        load(tmp_path / "ckpt.pt")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"n_layer": ' + "9" * 10_000 + "}"])
def test_json_that_cannot_be_read_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load(tmp_path)


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
    refused("is not a tensor", state={weight: "weights"})
    refused("lm_head.weight differs", state={"lm_head.weight": torch.zeros(371, 48)})
    arguments = published["model_args"]
    refused("rotary", model_args={**arguments, "rotary": True})
    refused("must be a multiple of n_head", model_args={**arguments, "n_head": 5})
    refused("the weights of 2 layers, its config 1", model_args={**arguments, "n_layer": 1})
    refused("no 'model' and 'model_args'", model_args=None)
