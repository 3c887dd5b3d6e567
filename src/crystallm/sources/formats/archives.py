"""Tar and zip archives, read as a stream: nothing is unpacked, and no name in them becomes a path.

Absolute names, names with `..`, links and members that are too large become entries with a reason. An
archive that unpacks to far more than its size is rejected.
"""

from __future__ import annotations

import struct
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError, one_line
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, NoCrystalsError, single_format, stem, too_large
from crystallm.sources.formats.cif_and_poscar import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_HEADER = 1_000_000
"""Maximum size of the header of a member of a tar archive, bytes: a name takes a hundred."""


# The libraries take the numbers in a damaged archive at their word, and stumble over them.
_WRONG = (
    tarfile.TarError,
    zipfile.BadZipFile,
    struct.error,
    TypeError,
    ValueError,
    LookupError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of an archive: its content, or why it is not read; `size` in bytes if it is too large."""

    name: str
    content: bytes = b""
    problem: str = ""
    size: int = 0


def read_archive(path: Path) -> Iterator[Entry]:
    """Yield the crystals of an archive in its order; see `sources.read`."""
    found = False
    for member in _members(path, lambda name: bool(single_format(name)), MAX_BYTES):
        found = True
        name, form = stem(member.name), single_format(member.name)
        if member.problem:
            yield Entry(name, None, member.problem, form)
        elif member.size:
            yield too_large(name, member.size, form)
        else:
            packed = member.name.lower().endswith(".gz")
            yield from entries(name, member.content, form, packed=packed)
    if not found:
        raise NoCrystalsError(f"the archive {str(path)!r} holds no CIF and no POSCAR")


def _members(path: Path, wanted: Callable[[str], bool], most: int) -> Iterator[_Member]:
    """Yield the files of these names, in their order.

    Args:
        path: of the archive.
        wanted: by its name, whether a file is read.
        most: bytes of one that is.
    """
    reader = _zip if path.name.lower().endswith(".zip") else _tar
    with _telling(path):
        yield from reader(path, wanted, most)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        with streams.telling(path, *_WRONG):
            yield
    except (RuntimeError, NotImplementedError) as error:  # a password, or a packing that Python lacks
        raise InputError(f"{str(path)!r} cannot be read: {one_line(error)}") from error


class _Header(tarfile.TarInfo):
    """Return the header of a member, unless it is long enough to fill the memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size > MAX_HEADER and not self.isfile() and not self.isdir():
            raise tarfile.HeaderError(f"a header of {self.size / 1e6:.0f} MB")
        return super()._proc_member(archive)  # type: ignore[misc]  # the hook of the library for its heirs


def _tar(path: Path, wanted: Callable[[str], bool], most: int) -> Iterator[_Member]:
    total = 0
    with (
        streams.by_content(path) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive,
    ):
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it would remember every one
            total += member.size
            if total > streams.most_bytes(path):
                raise streams.bomb(path)
            if not wanted(member.name) or member.isdir():
                continue
            if problem := _odd_name(member.name):
                yield _Member(member.name, problem=problem)
            elif not member.isfile():
                yield _Member(member.name, problem="a link, which is not followed")
            elif member.size > most:
                yield _Member(member.name, size=member.size)
            else:
                content = archive.extractfile(member)
                yield _Member(member.name, b"" if content is None else content.read())


def _zip(path: Path, wanted: Callable[[str], bool], most: int) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > streams.most_bytes(path):
            raise streams.bomb(path)
        for member in members:
            name = member.filename
            if not wanted(name) or member.is_dir():
                continue
            if problem := _odd_name(name):
                yield _Member(name, problem=problem)
            elif member.external_attr >> 16 & 0o170000 == 0o120000:
                yield _Member(name, problem="a link, which is not followed")
            elif member.file_size > most:
                yield _Member(name, size=member.file_size)
            else:
                with archive.open(member) as stream:
                    content = stream.read(most + 1)  # whatever size the archive names
                yield _Member(name, content) if len(content) <= most else _Member(name, size=len(content))


def _odd_name(name: str) -> str:
    """Return what is wrong with the name of a member; "" for nothing."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or (parts and parts[0].endswith(":")):
        return f"an absolute name, {name[:60]!r}, which is not read"
    return f"a name that leaves the archive, {name[:60]!r}, which is not read" if ".." in parts else ""
