"""`crystallm models` and `convert`."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from crystallm.cli import app
from crystallm.models import download, load
from crystallm.models import folder as models_folder
from random_models import random_model
from shelves import open_shelf, publish_small_model


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    with open_shelf(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def published_file(shelf):
    return publish_small_model(shelf)


def test_the_commands(tmp_path, monkeypatch, capsys, textbook_structures, shelf, published_file):
    monkeypatch.chdir(tmp_path)
    models_folder.save(random_model("orbits", "llama").network, tmp_path / "mine", card={"summary": "s"})
    assert app.run(["convert", "mine", "--to", "hf"]) == 0
    assert "mine-hf" in capsys.readouterr().out
    assert (
        app.run(
            ["convert", "mine-hf", "--to", "safetensors", "--out", "again", "--weights-dtype", "bfloat16"]
        )
        == 0
    )
    assert load.load_model("again").card == {"summary": "s"}
    push = ["convert", "mine", "--to", "hf", "--push", "org/new", "--weights-dtype", "bfloat16", "--quiet"]
    assert app.run(push) == 0
    weights = safetensors.torch.load(shelf.pushed["model.safetensors"])
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    capsys.readouterr()
    textbook_structures["rutile"].to(filename="rutile.cif")
    assert app.run(["convert", "rutile.cif", "--to", "orbits", "--out", "rutile.txt"]) == 0
    assert (tmp_path / "rutile.txt").read_text().startswith("<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f")
    assert app.run(["convert", "rutile.txt", "--to", "cif", "--out", "standard.txt"]) == 0
    assert (tmp_path / "standard.txt").read_text().startswith("data_Ti2O4\n")
    assert app.run(["convert", "standard.txt", "--to", "orbits"]) == 0
    assert capsys.readouterr().out == (tmp_path / "rutile.txt").read_text()
    assert app.run(["models", "--published"]) == 0
    assert "crystallm_v1_minus_mpts_52_small" in capsys.readouterr().out
    monkeypatch.setitem(download.listed(), "record", f"{shelf.address}/record")
    assert app.run(["models", "--fetch", "crystallm_v1_small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"].endswith("crystallm_v1_small.tar.gz")
    (tmp_path / "odd.txt").write_text("hello")
    (tmp_path / "odd.yaml").write_text("weights_dtype: nn")
    for arguments, said in (
        (["convert"], "nothing to convert"),
        (["convert", "mine"], "to = None"),
        (["convert", "mine", "--to", "safetensors", "--push", "org/x"], "--push takes --to hf"),
        (
            ["convert", "mine", "--to", "hf", "--config", "odd.yaml"],
            "weights_dtype = 'nn': input should be 'float32', 'bfloat16' or 'float16'",
        ),
        (["convert", "mine-hf", "--to", "safetensors", "--out", "mine"], "is there already"),
        (["convert", "odd.txt", "--to", "cif"], "begins with 'hello'"),
        (
            ["convert", "rutile.cif", "--to", "orbits", "--symprec", "-1"],
            "symprec = '-1': input should be greater than 0",
        ),
        (["models", "--fetch", "gpt"], "no published model 'gpt'"),
    ):
        assert app.run(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
