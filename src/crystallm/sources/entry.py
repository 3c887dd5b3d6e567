"""Entries of collections, and kinds of files by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crystallm.errors import InputError

MAX_BYTES = 5_000_000
"""Maximum size of one crystal. The largest of 47,335 structures of open collections has 40,000."""
CIF_NAME = re.compile(r"\.(cif|mcif)(\.gz)?$", re.IGNORECASE)
POSCAR_NAME = re.compile(r"(?:^|/)(?:POSCAR|CONTCAR)[^/]*$|\.(?:vasp|poscar)(?:\.gz)?$", re.IGNORECASE)
"""Files of one crystal that are taken from folders and archives."""
_ENDING = re.compile(r"(?:\.(?:cif|mcif|vasp|poscar))?(?:\.gz)?$", re.IGNORECASE)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
TABLES = (".csv", ".csv.gz", ".parquet")
JSON = (".json", ".json.gz")
JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
FRAMES = (".extxyz", ".extxyz.gz", ".xyz", ".xyz.gz")
DATABASES = (".db",)
PICKLES = (".pkl", ".pkl.gz", ".pickle", ".pickle.gz")


@dataclass(frozen=True, slots=True)
class Entry:
    """One crystal of a collection.

    Attributes:
        id: file name without its ending (with the folders above it, below the one that was named), or what
            the collection calls it, or its number there.
        text: the crystal, in `format`; None where it cannot be read.
        problem: why not, in a few words; "" where it can.
        format: `cif`, `poscar` or `extxyz`; or, as JSON, `pymatgen` (a Structure), `optimade` (attributes of
            a structure), `ase` (numbers, positions, cell, pbc). See `parsing`.
        note: how it was read, where that had to be decided; of texts that were converted.
        split: the part of a data set that the collection says it belongs to; "" where it says nothing.
        values: of further columns that were requested, where the collection has them.
    """

    id: str
    text: str | None
    problem: str = ""
    format: str = "cif"
    split: str = ""
    note: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Replace what no encoding can write, such as bytes of a file name that are not UTF-8."""
        for name in ("id", "problem", "split"):
            object.__setattr__(self, name, clean(getattr(self, name)))


class NoCrystalsError(InputError):
    """A readable file without crystals; its folder may hold some."""


def single_format(name: str) -> str:
    """Return the format of a file of one crystal by its name; "" for other files."""
    if CIF_NAME.search(name):
        return "cif"
    return "poscar" if POSCAR_NAME.search(name) else ""


def stem(name: str) -> str:
    """Return the name of a file of one crystal without its ending."""
    return _ENDING.sub("", name)


def too_large(name: str, size: int, form: str = "cif", what: str = "file") -> Entry:
    """Return the entry of a crystal that exceeds the maximum size (bytes)."""
    problem = f"the {what} has {size / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB read"
    return Entry(name, None, problem, form)


def clean(value: Any) -> str:
    """Return a text that every encoding can write: lone surrogates (of JSON, of pickles) are replaced."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
