"""The config of a model folder: JSON, fields, form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crystallm.errors import CheckpointError
from crystallm.models import stored_config


def test_a_config_is_read_and_validated(tmp_path: Path) -> None:
    path = tmp_path / stored_config.CONFIG_FILE
    path.write_text('{"language": "orbits", "vocab_size": 90, "n_embd": 64}')
    config = stored_config.parse_config(stored_config.read_json(path), path)
    assert (config.language, config.n_embd, config.n_layer) == ("orbits", 64, 8)
    with pytest.raises(CheckpointError, match=r"config\.json: vocab_size \('many'\): Input should be"):
        stored_config.parse_config({"language": "orbits", "vocab_size": "many"}, path)


def test_what_is_no_json_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / stored_config.CONFIG_FILE
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        stored_config.read_json(path)
    path.write_text("[1]")
    with pytest.raises(CheckpointError, match="must hold a JSON object"):
        stored_config.read_json(path)


def test_a_config_of_hugging_face_has_a_model_type() -> None:
    assert stored_config.is_huggingface({"model_type": "gpt2"})
    assert not stored_config.is_huggingface({"language": "orbits"})


def test_it_needs_no_torch() -> None:
    code = "import sys, crystallm.models.stored_config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
