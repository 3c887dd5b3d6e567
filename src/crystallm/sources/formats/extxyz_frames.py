"""Read frames of extended XYZ files: number of atoms N, a comment with the cell, N lines of atoms.

Cuts a file into frames; does not parse the lines of the atoms.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from crystallm.errors import InputError, one_line
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, NoCrystalsError, clean, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_ATOMS = 1_000_000
MAX_LINE = 1_000_000
"""Maximum size of a comment, bytes; those of some programs hold whole tensors."""
ID_KEYS = ("id", "material_id", "mat_id", "name")
_PAIR = re.compile(
    r"""(?<![^\s])(id|material_id|mat_id|name|split)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+))""",
    re.IGNORECASE,
)
_CELL = re.compile(r"(?<![^\s])(?:lattice|cell)\s*=", re.IGNORECASE)


def read_frames(path: Path) -> Iterator[Entry]:
    """Yield the crystals of a file in its order; see `sources.read`."""
    number = 0
    with streams.binary(path) as stream:
        lines = streams.lines(stream, path, MAX_LINE)
        for line in lines:
            if not line.strip():
                continue
            n_atoms = _number(line, path)
            comment = next(lines, b"")
            kept, size, n_lines = [line, comment], len(line) + len(comment), 0
            for row in islice(lines, n_atoms):
                n_lines += 1
                size += len(row)
                if size <= MAX_BYTES:
                    kept.append(row)
            if n_lines < n_atoms or not _ends(kept):
                raise streams.broken(path, f"frame {number} has {n_lines} of {n_atoms} atoms")
            yield _entry(number, comment.decode("utf-8", "replace"), kept, size)
            number += 1
    if not number:
        raise NoCrystalsError(f"{str(path)!r} holds no frame")


def _number(line: bytes, path: Path) -> int:
    told = line.strip()
    if not told.isdigit() or len(told) > 9 or int(told) > MAX_ATOMS:
        shown = one_line(told.decode("latin-1"), 30)
        raise InputError(
            f"{str(path)!r} is no XYZ file: a frame begins with {shown!r} in place of its number of atoms"
        )
    return int(told)


def _ends(kept: list[bytes]) -> bool:
    """Return whether the last line is complete: it may lack its end, but has as many words as the others."""
    last = kept[-1]
    return last.endswith(b"\n") or len(last.split()) >= max(4, len(kept[2].split()))


def _entry(number: int, comment: str, kept: list[bytes], size: int) -> Entry:
    pairs = {key.lower(): a or b or c for key, a, b, c in _PAIR.findall(comment)}
    name = clean(next((pairs[key] for key in ID_KEYS if pairs.get(key)), number))
    if size > MAX_BYTES:
        return too_large(name, size, "extxyz", "frame")
    if not _CELL.search(comment):
        return Entry(name, None, "no cell: its second line has no Lattice=", "extxyz")
    text = b"".join(kept).decode("utf-8", "replace")
    return Entry(name, text, "", "extxyz", pairs.get("split", ""))
