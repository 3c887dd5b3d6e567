"""Download models `hf:org/name` from the Hugging Face Hub, and push models with their card."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.errors import CheckpointError, InputError, one_line

if TYPE_CHECKING:
    import torch

    from crystallm.models.model import Model

PREFIX = "hf:"
FILES = ("*.json", "*.safetensors", "ckpt.pt", "README.md")
"""Files of a repository to download; of pickled weights only the published ones, read as plain data."""
_NAME = re.compile(r"(?P<name>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,100}))?")


def fetch(name: str) -> Path:
    """Download a model from the Hub, or take it from the cache, and return its folder.

    Args:
        name: `org/name` or `org/name@revision`, with or without the prefix `hf:`.

    Raises:
        InputError: invalid name.
        CheckpointError: the Hub cannot be reached, or has no such model.
    """
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None:
        raise InputError(f"{name!r} is not a model of the Hub: write hf:org/name, or hf:org/name@revision")
    try:
        folder = _api().snapshot_download(
            match["name"], revision=match["revision"], allow_patterns=list(FILES)
        )
    except Exception as error:  # the types depend on the version of huggingface_hub
        raise CheckpointError(
            f"{match['name']} cannot be downloaded from the Hub: {one_line(error)}"
        ) from error
    return Path(folder)


def push(
    model: Model,
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Upload a model to the Hub in Hugging Face's form, with its card.

    Args:
        model: to upload.
        name: `org/name`; created if missing.
        private: whether a created repository is private.
        token: of the Hub; that of the login if None.
        dtype: of the stored weights; unchanged if None.

    Returns:
        Address of the model.

    Raises:
        InputError: invalid name.
        CheckpointError: the upload failed.
    """
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None or match["revision"]:
        raise InputError(f"{name!r} is not a repository name of the Hub: write org/name")
    from crystallm.models import huggingface, model_card

    api = _api(token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = huggingface.write(model, Path(temporary) / "model", dtype=dtype)
        (folder / "README.md").write_text(model_card.markdown(model, match["name"]), encoding="utf-8")
        try:
            api.create_repo(match["name"], private=private, exist_ok=True)
            api.upload_folder(repo_id=match["name"], folder_path=str(folder), commit_message="Upload model")
        except Exception as error:  # as above
            raise CheckpointError(
                f"{match['name']} cannot be uploaded to the Hub: {one_line(error)}"
            ) from error
    return f"{api.endpoint}/{match['name']}"


def _api(token: str | None = None) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
