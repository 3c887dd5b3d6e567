"""The published CrystaLLM weights: which there are, and how they get here.

Names and the address of the record are those of the original's list of artefacts. Sizes and MD5 sums are not
kept here: the record itself is asked for them, and a file is accepted only with both. A download that breaks
off goes on where it was. Where files go: `$CRYSTALLM_CACHE`, or `~/.cache/crystallm`.

Knows archives by name and size; what is in them is read by `checkpoint`.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from http import HTTPStatus
from http.client import HTTPException
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError, one_line
from crystallm.storage.files import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


ENDING = ".tar.gz"

CHUNK = 1 << 20

SECONDS = 30.0
"""Without a byte, after which a connection is given up."""


@cache
def listed() -> Mapping[str, Any]:
    """The list: `source`, `record`, `licence`, and `models` with what each was trained on, by name."""
    found: dict[str, Any] = json.loads(
        (files("crystallm.models") / "published.json").read_text(encoding="utf-8")
    )
    return found


def names() -> tuple[str, ...]:
    """Names of the published models."""
    return tuple(listed()["models"])


def folder() -> Path:
    """Where fetched models are."""
    return cache_folder("models")


def path(name: str) -> Path:
    """Where the archive of a model is, or would be."""
    return folder() / f"{name}{ENDING}"


def fetch(
    name: str, *, record: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Get a published model, if it is not here yet.

    Args:
        name: one of `names`.
        record: address of the record that tells of files; Zenodo's by default.
        progress: called with the bytes that are here, and all there are.

    Returns:
        The archive, which `load_model` takes by its path or the model's name.

    Raises:
        InputError: no such model.
        CrystallmError: the record or the file cannot be reached, or is another one than the record says; what
            has arrived of a file is kept, and the next call goes on.
    """
    if name not in names():
        from crystallm.options import hint

        raise InputError(f"no published model {name!r}: {hint(name, names())}")
    place = path(name)
    if place.exists():
        return place
    told = _told(record or str(listed()["record"]), f"{name}{ENDING}")
    part = place.with_name(f"{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _download(told["url"], part, told["size"], progress)
        size = part.stat().st_size
        if size < told["size"]:
            raise CrystallmError(
                f"{name}: the connection has ended after {size} of {told['size']} bytes: the same command "
                "goes on from here"
            )
        found = _md5(part)
        if (size, found) != (told["size"], told["md5"]):
            part.unlink()
            raise CrystallmError(
                f"{name}: {size} bytes with the MD5 sum {found} have arrived, the record says {told['size']} "
                f"and {told['md5']}: try again"
            )
        part.rename(place)
    except (OSError, HTTPException) as error:
        raise CrystallmError(
            f"{name} cannot be fetched ({one_line(error, 160)}): the same command goes on from here"
        ) from error
    return place


def _open(address: str, start: int = 0) -> Any:
    """The answer of a server, from a byte on if it can.

    Raises:
        InputError: an address of another kind than the web's.
        OSError: it cannot be reached, or answers with an error.
    """
    from urllib.request import Request, urlopen

    if not address.startswith(("https://", "http://")):
        raise InputError(f"{address!r} is no address of the web")
    head = {"User-Agent": "crystallm"} | ({"Range": f"bytes={start}-"} if start else {})
    return urlopen(Request(address, headers=head), timeout=SECONDS)  # noqa: S310 - looked at above


def _told(record: str, file: str) -> dict[str, Any]:
    """Address, size and MD5 sum of a file, as its record tells them."""
    try:
        with _open(record) as answer:
            content = json.loads(answer.read(10 * CHUNK))
        (found,) = [entry for entry in content["files"] if entry["key"] == file]
        kind, md5 = str(found["checksum"]).split(":")
        told = {"url": str(found["links"]["self"]), "size": int(found["size"]), "md5": md5}
    except OSError as error:
        raise CrystallmError(
            f"{record} cannot be reached ({one_line(error, 160)}): is there a network?"
        ) from None
    except (KeyError, ValueError, TypeError) as error:
        raise CrystallmError(f"{record} tells nothing of {file} ({type(error).__name__}: {error})") from None
    if kind != "md5" or not re.fullmatch("[0-9a-f]{32}", md5):
        raise CrystallmError(f"{record} has no MD5 sum of {file}, but {found['checksum']!r}")
    return told


def _download(url: str, part: Path, size: int, progress: Callable[[int, int], None] | None) -> None:
    """Append what is missing of a file."""
    there = part.stat().st_size if part.exists() else 0
    if there > size:
        part.unlink()
        there = 0
    if there == size:
        return
    with _open(url, there) as answer:
        # A server that does not know ranges begins anew.
        going_on = answer.status == HTTPStatus.PARTIAL_CONTENT
        there = there if going_on else 0
        with part.open("ab" if going_on else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                there += len(chunk)
                if progress is not None:
                    progress(there, size)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
