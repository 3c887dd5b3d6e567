"""CIFs in tar and zip archives, read as a stream: nothing is unpacked, and no name in them becomes a path.

Absolute names, names with `..`, links and members that are too large are entries with a reason. An archive
that unpacks to far more than it holds is refused as a whole.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from crystallm.errors import InputError
from crystallm.sources import CIF_NAME, MAX_BYTES, Entry, as_entry, stem, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_RATIO = 200
"""Unpacked over packed size of a whole archive. CIFs pack to a tenth, equal ones to a hundredth."""
FREE_BYTES = 50_000_000
"""Unpacked size up to which the ratio is nobody's business."""


def read_archive(path: Path) -> Iterator[Entry]:
    """The crystals of an archive in its order; see `sources.read`."""
    found = False
    reader = _zip if path.name.lower().endswith(".zip") else _tar
    try:
        for entry in reader(path):
            found = True
            yield entry
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{str(path)!r} cannot be read to its end ({error}): is it truncated?") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, or a packing that Python lacks
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if not found:
        raise InputError(f"the archive {str(path)!r} holds no CIF")


def _tar(path: Path) -> Iterator[Entry]:
    total, most = 0, max(FREE_BYTES, MAX_RATIO * path.stat().st_size)
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            total += member.size
            if total > most:
                raise _bomb(path)
            name = stem(member.name)
            if not CIF_NAME.search(member.name) or member.isdir():
                continue
            if problem := _odd_name(member.name):
                yield Entry(name, None, problem)
            elif not member.isfile():
                yield Entry(name, None, "a link, which is not followed")
            elif member.size > MAX_BYTES:
                yield too_large(name, member.size)
            else:
                stream = archive.extractfile(member)
                yield as_entry(name, b"" if stream is None else stream.read())


def _zip(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > max(FREE_BYTES, MAX_RATIO * path.stat().st_size):
            raise _bomb(path)
        for member in members:
            name = stem(member.filename)
            if not CIF_NAME.search(member.filename) or member.is_dir():
                continue
            if problem := _odd_name(member.filename):
                yield Entry(name, None, problem)
            elif member.file_size > MAX_BYTES:
                yield too_large(name, member.file_size)
            else:
                with archive.open(member) as stream:
                    content = stream.read(MAX_BYTES + 1)  # whatever size the archive names
                yield too_large(name, len(content)) if len(content) > MAX_BYTES else as_entry(name, content)


def _odd_name(name: str) -> str:
    """What is wrong with a member's name; "" for nothing."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or (parts and parts[0].endswith(":")):
        return f"an absolute name, {name[:60]!r}, which is not read"
    return f"a name that leaves the archive, {name[:60]!r}, which is not read" if ".." in parts else ""


def _bomb(path: Path) -> InputError:
    return InputError(
        f"{str(path)!r} unpacks to more than {MAX_RATIO} times its size: that is no archive of crystals"
    )
