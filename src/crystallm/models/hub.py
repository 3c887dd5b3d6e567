"""Models on the Hugging Face Hub: fetched by `hf:org/name`, and pushed with their card.

Knows folders and names; what is in a folder is read by `checkpoint`, written by `hf`.
"""

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

WANTED = ("*.json", "*.safetensors", "ckpt.pt", "README.md")
"""Files of a repository that are fetched: of pickled weights the published ones alone, read as data."""

_NAME = re.compile(r"(?P<name>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,100}))?")


def fetch(name: str) -> Path:
    """The folder of a model on the Hub; what is in the cache already is not fetched again.

    Args:
        name: `org/name`, or `org/name@revision`; with or without `hf:` before it.

    Raises:
        InputError: no such name.
        CheckpointError: it cannot be reached, or is not there.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise InputError(f"{name!r} is no model of the Hub: write hf:org/name, or hf:org/name@revision")
    try:
        folder = _api().snapshot_download(
            found["name"], revision=found["revision"], allow_patterns=list(WANTED)
        )
    except Exception as error:  # of many types, by its version; the reason carries it
        raise CheckpointError(f"{found['name']} cannot be fetched from the Hub: {one_line(error)}") from error
    return Path(folder)


def push(
    model: Model,
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Put a model on the Hub in Hugging Face's form, with its card.

    Args:
        model: to push.
        name: `org/name`; made if it is not there.
        private: whether others see it, if it is made.
        token: of the Hub; the one that you have logged in with if None.
        dtype: of the stored weights; as they are if None.

    Returns:
        Its address.

    Raises:
        InputError: no such name.
        CheckpointError: it cannot be written there.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None or found["revision"]:
        raise InputError(f"{name!r} is no name on the Hub: write org/name")
    from crystallm.models import huggingface, model_card

    api = _api(token)
    with tempfile.TemporaryDirectory() as place:
        folder = huggingface.write(model, Path(place) / "model", dtype=dtype)
        (folder / "README.md").write_text(model_card.markdown(model, found["name"]), encoding="utf-8")
        try:
            api.create_repo(found["name"], private=private, exist_ok=True)
            api.upload_folder(
                repo_id=found["name"], folder_path=str(folder), commit_message="Write the model"
            )
        except Exception as error:  # as above
            raise CheckpointError(
                f"{found['name']} cannot be written on the Hub: {one_line(error)}"
            ) from error
    return f"{api.endpoint}/{found['name']}"


def _api(token: str | None = None) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
