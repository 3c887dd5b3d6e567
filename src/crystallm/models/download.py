"""Download published CrystaLLM weights from Zenodo.

Names and record are those of the original's list of artefacts. Size and MD5 sum of a file come from the
record, and a file is accepted only if both match. An interrupted download resumes. Files go to
`$CRYSTALLM_CACHE`, or `~/.cache/crystallm`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from typing import Any

from crystallm.errors import CrystallmError, InputError, one_line
from crystallm.storage.files import cache_folder

ENDING = ".tar.gz"
CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds without a byte after which a connection is closed."""


@cache
def listed() -> Mapping[str, Any]:
    """Return `source`, `record`, `licence`, and `models` with their training data by name."""
    catalogue: dict[str, Any] = json.loads(
        (files("crystallm.models") / "published.json").read_text(encoding="utf-8")
    )
    return catalogue


def names() -> tuple[str, ...]:
    """Return the names of the published models."""
    return tuple(listed()["models"])


def folder() -> Path:
    """Return the folder of downloaded models."""
    return cache_folder("models")


def path(name: str) -> Path:
    """Return the path of the archive of a model, which may not exist."""
    return folder() / f"{name}{ENDING}"


def fetch(
    name: str, *, record: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Download a published model, unless it was downloaded before.

    Args:
        record: address of the record that lists the files; Zenodo's by default.
        progress: called with the numbers of downloaded and of all bytes.

    Returns:
        The archive; `load_model` accepts its path or the name of the model.

    Raises:
        CrystallmError: record or file cannot be reached, or size or MD5 sum do not match. A partial file is
            kept, and the next call resumes.
    """
    if name not in names():
        from crystallm.options import hint

        raise InputError(f"no published model {name!r}: {hint(name, names())}")
    archive = path(name)
    if archive.exists():
        return archive
    expected = _file_record(record or str(listed()["record"]), f"{name}{ENDING}")
    part = archive.with_name(f"{archive.name}.part")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        _download(expected["url"], part, expected["size"], progress)
        size = part.stat().st_size
        if size < expected["size"]:
            raise CrystallmError(
                f"{name}: the connection ended after {size} of {expected['size']} bytes: run the same "
                "command again to resume"
            )
        with part.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if (size, md5) != (expected["size"], expected["md5"]):
            part.unlink()
            raise CrystallmError(
                f"{name}: received {size} bytes with MD5 sum {md5}, the record says {expected['size']} and "
                f"{expected['md5']}: try again"
            )
        part.rename(archive)
    except (OSError, HTTPException) as error:
        raise CrystallmError(
            f"{name} cannot be downloaded ({one_line(error, 160)}): run the same command again to resume"
        ) from error
    return archive


def _open(address: str, start: int = 0) -> Any:
    """Open a response, from byte `start` on if the server supports ranges."""
    from urllib.request import Request, urlopen

    if not address.startswith(("https://", "http://")):
        raise InputError(f"{address!r} is not an http or https address")
    head = {"User-Agent": "crystallm"} | ({"Range": f"bytes={start}-"} if start else {})
    return urlopen(Request(address, headers=head), timeout=TIMEOUT)  # noqa: S310 - checked above


def _file_record(record: str, file: str) -> dict[str, Any]:
    """Read address, size and MD5 sum of a file from its record."""
    try:
        with _open(record) as response:
            content = json.loads(response.read(10 * CHUNK))
        (entry,) = [entry for entry in content["files"] if entry["key"] == file]
        kind, md5 = str(entry["checksum"]).split(":")
        expected = {"url": str(entry["links"]["self"]), "size": int(entry["size"]), "md5": md5}
    except OSError as error:
        raise CrystallmError(
            f"{record} cannot be reached ({one_line(error, 160)}): check the network"
        ) from None
    except (KeyError, ValueError, TypeError) as error:
        raise CrystallmError(f"{record} does not list {file} ({type(error).__name__}: {error})") from None
    if kind != "md5" or not re.fullmatch("[0-9a-f]{32}", md5):
        raise CrystallmError(f"{record} has no MD5 sum of {file}, but {entry['checksum']!r}")
    return expected


def _download(url: str, part: Path, size: int, progress: Callable[[int, int], None] | None) -> None:
    """Append the missing bytes of a partial file."""
    n_bytes = part.stat().st_size if part.exists() else 0
    if n_bytes > size:
        part.unlink()
        n_bytes = 0
    if n_bytes == size:
        return
    with _open(url, n_bytes) as response:
        # A server without support for ranges sends the whole file.
        resumes = response.status == HTTPStatus.PARTIAL_CONTENT
        n_bytes = n_bytes if resumes else 0
        with part.open("ab" if resumes else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                n_bytes += len(chunk)
                if progress is not None:
                    progress(n_bytes, size)
