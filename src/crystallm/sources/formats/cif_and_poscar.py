"""Read files of one crystal, CIF or POSCAR, and CIFs of several, one crystal per data block.

A data block without atoms (of a publication, or a pattern) is not a crystal; if at least two blocks have
atoms, the others are skipped. Texts are not parsed.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from crystallm.errors import InputError
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, single_format, too_large

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_HEAD = re.compile(rb"data_(\S*)", re.IGNORECASE)
_ATOMS = re.compile(rb"(?<!\S)_atom_site[_.](?:fract|cartn)_x(?!\S)", re.IGNORECASE)
_WORD = re.compile(rb"""'.*?'(?!\S)|".*?"(?!\S)|#.*|\S+""")
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""First bytes of texts in other encodings than UTF-8."""


def read_file(path: Path, name: str) -> Iterator[Entry]:
    """Yield the crystals of one file.

    Raises:
        InputError: a CIF of several crystals is damaged after the first ones.
    """
    form = single_format(path.name)
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        problem = f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
        yield Entry(name, None, problem, form)
        return
    if len(content) <= MAX_BYTES:
        yield from entries(name, content, form)
    elif form == "cif" and _several(path):
        yield from _read_large(path, name)
    elif packed:
        yield _too_large_unpacked(name, form)
    else:
        yield too_large(name, path.stat().st_size, form)


def entries(name: str, content: bytes, form: str, *, packed: bool = False) -> Iterator[Entry]:
    """Yield the crystals of the content of a file: one, or one per data block."""
    if packed:
        unpacked = _unpacked(name, content, form)
        if isinstance(unpacked, Entry):
            yield unpacked
            return
        content = unpacked
    if len(content) > MAX_BYTES:
        yield too_large(name, len(content), form)
        return
    if form == "cif" and len(_HEAD.findall(content)) > 1:
        lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        found = [pair for pair in _blocks(io.BytesIO(lines)) if pair[1] is not None]
        if len(found) > 1:
            used: Counter[str] = Counter()
            for block, text in found:
                used[block] += 1
                number = f"-{used[block]}" if used[block] > 1 else ""
                yield as_entry(f"{name}/{block}{number}", text or b"", form)
            return
    yield as_entry(name, content, form)


def as_entry(name: str, content: bytes, form: str) -> Entry:
    """Return the entry of the content of a file."""
    if not content.strip():
        return Entry(name, None, "the file is empty", form)
    encoding = next((code for mark, code in _MARKS.items() if content.startswith(mark)), "")
    try:
        if encoding:
            return Entry(name, content.decode(encoding), "", form)
    except UnicodeDecodeError:
        return Entry(name, None, f"the file is not text in {encoding.upper()}", form)
    if b"\0" in content:
        return Entry(name, None, "the file is binary, not text", form)
    try:
        return Entry(name, content.decode("utf-8-sig"), "", form)
    except UnicodeDecodeError:
        # Old CIFs name authors so; symbols are ASCII anyway.
        return Entry(name, content.decode("latin-1"), "", form)


def _unpacked(name: str, content: bytes, form: str) -> bytes | Entry:
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            unpacked = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        return Entry(name, None, f"the file cannot be read: {error}", form)
    return _too_large_unpacked(name, form) if len(unpacked) > MAX_BYTES else unpacked


def _too_large_unpacked(name: str, form: str) -> Entry:
    return Entry(name, None, f"the file unpacks to more than the {MAX_BYTES / 1e6:.0f} MB read", form)


def _several(path: Path) -> bool:
    """Return whether a CIF holds at least two crystals."""
    try:
        with streams.binary(path) as stream:
            with_atoms = (
                text for _, text in _blocks(streams.lines(stream, path, MAX_BYTES)) if text is not None
            )
            return len(list(islice(with_atoms, 2))) > 1
    except InputError:
        return False


def _read_large(path: Path, name: str) -> Iterator[Entry]:
    """Yield the crystals of a file block by block: it may exceed the memory."""
    with streams.binary(path) as stream:
        for block, text in _blocks(streams.lines(stream, path, MAX_BYTES)):
            if text is not None:
                place = f"{name}/{block}"
                yield as_entry(place, text, "cif") if text else too_large(place, MAX_BYTES, what="block")


def _blocks(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes | None]]:
    """Yield names and texts of data blocks: None for one without atoms, empty for one that is too large."""
    name, kept, size, atoms = "", list[bytes](), 0, False
    for line, head, quoted in _lines(lines):
        if head is not None:
            if size:
                yield name, _text(kept, size, atoms=atoms)
            name, kept, size, atoms = head, [], 0, False
        if not quoted and _ATOMS.search(line):
            atoms = True
        size += len(line)
        if size <= MAX_BYTES:
            kept.append(line)
        else:
            kept = []
    if size:
        yield name, _text(kept, size, atoms=atoms)


def _lines(lines: Iterable[bytes]) -> Iterator[tuple[bytes, str | None, bool]]:
    """Yield lines, cut where a block begins; the name of that block or None; whether it is a text field."""
    field = False
    for line in lines:
        if line.startswith(b";"):
            field = not field
            yield line, None, True
            continue
        if field or not _HEAD.search(line):
            yield line, None, field
            continue
        start, head = 0, None
        for word in _WORD.finditer(line):
            if word[0].startswith(b"#"):
                break
            match = _HEAD.match(word[0])
            if match is None:
                continue
            if line[start : word.start()].strip():
                yield line[start : word.start()] + b"\n", head, False
            start, head = word.start(), match[1].decode("latin-1")
        yield line[start:], head, False


def _text(kept: list[bytes], size: int, *, atoms: bool) -> bytes | None:
    if not atoms:
        return None
    return b"".join(kept) if size <= MAX_BYTES else b""
