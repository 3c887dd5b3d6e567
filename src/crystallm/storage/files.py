"""Files written whole or not at all; JSON."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TEMPORARY = ".tmp"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file for people to read; raises as `write_atomically`."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def check_place(path: Path) -> None:
    """Look whether a folder could be made or written, writing nothing.

    Raises:
        CrystallmError: a file is in the way, or the folder cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise CrystallmError(f"{str(path)!r} is a file: name a folder for the results")
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not place.is_dir():
        raise CrystallmError(f"{str(place)!r} is a file: no folder {str(path)!r} can be made in it")
    if not os.access(place, os.W_OK | os.X_OK):
        raise CrystallmError(f"the folder {str(place)!r} cannot be written: choose another with --out")


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that it is there whole or not at all; its folder is made.

    Args:
        path: of the file; an old one is replaced.
        content: all of it.
        sync: wait until the disk has it, so that it outlives a loss of power too.

    Raises:
        CrystallmError: the disk is full, the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    with saying(f"{str(path)!r} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """Turn an error of the operating system into one line."""
    try:
        yield
    except OSError as error:
        raise CrystallmError(f"{what}: {error.strerror or error}") from error
