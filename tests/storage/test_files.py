from __future__ import annotations

import json
import os

import pytest

from crystallm.errors import CrystallmError
from crystallm.storage import files


def test_an_old_file_survives_a_write_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CrystallmError, match="No space left on device"):
        files.write_atomically(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_bytes() == b"old"


def test_json_is_for_people_to_read(tmp_path):
    files.write_json(tmp_path / "deeper" / "a.json", {"formula": "Å", "n": [1, 2]})
    text = (tmp_path / "deeper" / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"formula": "Å", "n": [1, 2]}
    assert "Å" in text
    assert text.count("\n") > 3


def test_a_path_is_checked_without_writing(tmp_path):
    files.check_place(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(CrystallmError, match="is a file"):
            files.check_place(path)


def test_the_cache_folder_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALLM_CACHE", str(tmp_path))
    assert files.cache_folder("models") == tmp_path / "models"
    monkeypatch.delenv("CRYSTALLM_CACHE")
    assert files.cache_folder("models").parent.name == "crystallm"
