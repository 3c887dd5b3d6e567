"""Files that are complete or absent, JSON files, and cache folders."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crystallm.errors import CrystallmError, InputError

TEMPORARY = ".tmp"
"""Ending of a file that is being written."""


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file; raises as `write_atomically`."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def without_nan(value: Any) -> Any:
    """Return a value as JSON has it: None for NaN, tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def check_file(path: Path | None, *endings: str) -> None:
    """Check the name of a file of results, and that its folder exists.

    Raises:
        InputError: it has another ending, or there is no such folder.
    """
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise InputError(f"out = {str(path)!r}: name a file that ends in {' or '.join(endings)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"no folder {str(path.parent)!r} for {path.name!r}: make it first")


def check_place(path: Path) -> None:
    """Check that a folder exists or can be created, and is writable, without writing anything.

    Raises:
        CrystallmError: a file is in the way, or the folder is not writable.
    """
    if path.exists() and not path.is_dir():
        raise CrystallmError(f"{str(path)!r} is a file: name a folder for the results")
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise CrystallmError(f"{str(existing)!r} is a file: the folder {str(path)!r} cannot be created in it")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise CrystallmError(f"the folder {str(existing)!r} cannot be written: choose another with --out")


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that it is complete or absent; its folder is created.

    Args:
        sync: wait until the disk has it, so that it survives a loss of power.

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
    """Turn an error of the operating system into a CrystallmError of one line that starts with `what`."""
    try:
        yield
    except OSError as error:
        raise CrystallmError(f"{what}: {error.strerror or error}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, a hidden file beside it, where the file system has locks.

    Raises:
        CrystallmError: another process holds it.
    """
    import filelock

    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise CrystallmError(
            f"another process writes {str(path)!r}: wait for it, or choose another folder with --out"
        ) from None
    except (OSError, NotImplementedError):  # no locks here: what others write is noticed before this writes
        yield
        return
    try:
        yield
    finally:
        # While it is held: filelock (since 4) takes no lock on a file that is gone, and begins again.
        with contextlib.suppress(OSError):  # of systems that keep open files
            Path(lock.lock_file).unlink()
        lock.release()


def cache_folder(name: str) -> Path:
    """Return the folder for cached files of a kind: below $CRYSTALLM_CACHE, or the user's cache folder."""
    import platformdirs

    root = os.environ.get("CRYSTALLM_CACHE")
    return (Path(root) if root else platformdirs.user_cache_path("crystallm")) / name
