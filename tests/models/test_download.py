"""Published weights: checked, resumed, unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crystallm.errors import CheckpointError, CrystallmError, InputError
from crystallm.models import download, load
from shelves import archive, open_shelf, publish_small_model

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    with open_shelf(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def published_file(shelf):
    return publish_small_model(shelf)


def test_a_published_model_is_fetched_checked_and_loaded_by_its_name(shelf, published_file):
    with pytest.raises(CheckpointError, match="crystallm models --fetch crystallm_v1_small"):
        load.load_model("crystallm_v1_small")
    shelf.cut = [len(published_file) // 3, 2 * len(published_file) // 3]
    record = f"{shelf.address}/record"
    seen = []
    for _ in range(2):  # the connection breaks off twice
        with pytest.raises(CrystallmError, match="to resume"):
            download.fetch("crystallm_v1_small", record=record)
        assert not download.path("crystallm_v1_small").exists()
    found = download.fetch("crystallm_v1_small", record=record, progress=lambda *told: seen.append(told))
    assert found.read_bytes() == published_file
    assert seen[-1] == (len(published_file), len(published_file))
    ranges = [asked for path, asked in shelf.asked if path == "/files/small"]
    assert ranges == [None, f"bytes={len(published_file) // 3}-", f"bytes={2 * len(published_file) // 3}-"]
    n_asked = len(shelf.asked)
    assert download.fetch("crystallm_v1_small", record=record) == found  # it is here: nobody is asked
    assert len(shelf.asked) == n_asked
    model = load.load_model("crystallm_v1_small", device="cpu")
    assert model.name == "crystallm_v1_small"
    assert model.language.name == "cif"
    golden = load.load_model(GOLDEN / "checkpoint_nobias" / "ckpt.pt", device="cpu")
    ids = torch.arange(12)[None]
    assert torch.equal(model.network(ids), golden.network(ids))


def test_a_file_with_another_sum_is_thrown_away(shelf, published_file):
    shelf.record["files"][0]["checksum"] = "md5:" + "0" * 32
    with pytest.raises(CrystallmError, match="the record says"):
        download.fetch("crystallm_v1_small", record=f"{shelf.address}/record")
    assert not list(download.folder().iterdir())
    for record, said in (
        ({"files": []}, "does not list crystallm_v1_small"),
        ({"files": [shelf.record["files"][0] | {"checksum": "sha1:00"}]}, "no MD5 sum"),
        ({"files": [shelf.record["files"][0] | {"links": {"self": "file:///etc/passwd"}}]}, "not an http"),
    ):
        shelf.record = record
        with pytest.raises(CrystallmError, match=said):
            download.fetch("crystallm_v1_small", record=f"{shelf.address}/record")
    with pytest.raises(CrystallmError, match="cannot be reached"):
        download.fetch("crystallm_v1_small", record=f"{shelf.address}/gone")
    with pytest.raises(InputError, match="did you mean crystallm_v1_small"):
        download.fetch("crystallm_v1_smal")


def test_archives_without_a_checkpoint_are_refused(tmp_path):
    for content, said in ((archive(b"x", "a/other.pt"), "holds no ckpt.pt"), (b"none", "cannot be read")):
        (tmp_path / "m.tar.gz").write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            load.load_model(tmp_path / "m.tar.gz")
