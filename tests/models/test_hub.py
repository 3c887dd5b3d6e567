"""Download from and upload to a Hub on this machine."""

from __future__ import annotations

import pytest
import torch

from crystallm.errors import CheckpointError, InputError
from crystallm.models import hub, huggingface, load
from random_models import random_model
from shelves import open_shelf


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    with open_shelf(monkeypatch, tmp_path) as server:
        yield server


def test_a_model_is_fetched_from_the_hub(shelf, tmp_path):
    model = random_model("orbits", "llama")
    folder = huggingface.write(model, tmp_path / "m")
    shelf.files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    shelf.files["pytorch_model.bin"] = b"a pickle"
    found = load.load_model("hf:org/crystals", device="cpu")
    assert found.name == "hf:org/crystals"
    ids = torch.arange(10)[None]
    assert torch.equal(found.network(ids), model.network(ids))
    assert not any("pytorch_model.bin" in path for path, _ in shelf.asked)
    for name, error, said in (
        ("hf:org/other", CheckpointError, "org/other cannot be downloaded from the Hub"),
        ("hf:crystals", InputError, "write hf:org/name"),
        ("hf:../../x/y", InputError, "write hf:org/name"),
    ):
        with pytest.raises(error, match=said):
            load.load_model(name)


def test_a_model_is_pushed_with_its_card(shelf, tmp_path):
    model = random_model("cif", "gpt2")
    assert hub.push(model, "org/new", token="hf_none") == f"{shelf.address}/org/new"  # noqa: S106 - of the stub
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(shelf.pushed)
    assert "# new" in shelf.pushed["README.md"].decode()
    assert 'load_model("hf:org/new")' in shelf.pushed["README.md"].decode()
    (tmp_path / "again").mkdir()
    for name, content in shelf.pushed.items():
        (tmp_path / "again" / name).write_bytes(content)
    assert load.load_model(tmp_path / "again", device="cpu").config == model.config
    with pytest.raises(InputError, match="write org/name"):
        hub.push(model, "new")
