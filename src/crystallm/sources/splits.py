"""Splits: PATH=SPLIT, names and files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"valid": "val", "validation": "val", "dev": "val"} | {name: name for name in SPLITS}
"""Accepted names of splits."""


def read_splits(path: Path) -> dict[str, str]:
    """Read the split of each id: a CSV with columns id (or material_id) and split, or JSON {split: [ids]}.

    Raises:
        InputError: no such file, or it says something else.
    """
    remedy = "give auto, given, random, formula, a CSV file (id,split) or a JSON file {split: [ids]}"
    if not path.is_file():
        raise InputError(f"split = {str(path)!r}: no such file; {remedy}")
    found: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            if path.suffix.lower() == ".json":
                pairs = [(i, name) for name, ids in dict(json.load(handle)).items() for i in ids]
            else:
                reader = csv.DictReader(handle)
                column = next(c for c in ("id", "material_id") if c in (reader.fieldnames or ()))
                pairs = [(row[column], row["split"]) for row in reader]
    except (OSError, ValueError, TypeError, KeyError, StopIteration, csv.Error, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"[:120]
        raise InputError(f"{str(path)!r} does not give ids their splits ({why}): {remedy}") from None
    for identifier, name in pairs:
        split = split_named(str(name))
        if split is None:
            raise InputError(f"{str(path)!r}: no split {name!r}; give one of {', '.join(SPLITS)}")
        if found.setdefault(str(identifier), split) != split:
            raise InputError(f"{str(path)!r} puts {identifier!r} into {found[str(identifier)]} and {split}")
    return found


def split_named(name: str) -> str | None:
    """Return the split of this name, `val` for `validation` and `dev`; None if there is none."""
    return SPLIT_NAMES.get(name.strip().lower())


def place_and_split(spec: str) -> tuple[Path, str]:
    """Return the path of an input and its split, if any. The name of a file may hold a `=`.

    Raises:
        InputError: no such place, or no such split.
    """
    name, sign, split = spec.rpartition("=")
    if not sign or Path(spec).exists() or not re.fullmatch(r"\w+", split):
        name, split = spec, ""
    known = split_named(split) if split else ""
    if known is None:
        raise InputError(f"{spec!r}: no split {split!r}; give one of {', '.join(SPLITS)}")
    if not Path(name).exists():
        raise InputError(f"no file or folder {name!r}")
    return Path(name), known


def read_rows(spec: str, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield rows of an input `PATH` or `PATH=SPLIT`: id, source, split, text, format, problem, values.

    The split is "" where nothing says it; text, format, problem and values are those of `sources.Entry`.

    Args:
        spec: the input.
        columns: further columns, whose values are wanted.

    Raises:
        InputError: an unknown split, or as `sources.read`.
    """
    from crystallm.sources import collection

    path, split = place_and_split(spec)
    for number, entry in enumerate(collection.read(path, columns)):
        place = split
        if not place and entry.split:
            named = split_named(entry.split)
            if named is None:
                raise InputError(
                    f"{str(path)!r}, row {number}: no split {entry.split!r}; give one of {', '.join(SPLITS)}"
                )
            place = named
        yield {
            "id": entry.id,
            "source": path.name,
            "split": place,
            "text": entry.text,
            "format": entry.format,
            "problem": entry.problem,
            "values": dict(entry.values),
        }
