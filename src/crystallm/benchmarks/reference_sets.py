"""Entries of a benchmark: files, reference structures, and the request for each.

Imports nothing heavy, as the commands' help needs it.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pymatgen.core import Structure

    from crystallm.generation.request import Request

T = TypeVar("T")
SETS = ("perov_5", "carbon_24", "mp_20", "mpts_52")
"""Benchmarks of crystal structure prediction with official splits, published with CDVAE (Xie et al., ICLR
2022) and DiffCSP (Jiao et al., NeurIPS 2023)."""
FOLDER = "CRYSTALLM_DATA"
"""Environment variable with the folder of these sets."""


@dataclass(frozen=True, slots=True)
class ReferenceStructure:
    """An entry: its id and its structure, as in its collection."""

    id: str
    structure: Structure


def find_set(name: str, split: str | None = None, folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the file of an official split, `FOLDER/perov_5/test.csv.gz`.

    Args:
        split: `test` (default), `val` or `train`.
        folder: of the sets; by default that in CRYSTALLM_DATA.

    Raises:
        InputError: there is no such file.
    """
    root = folder or os.environ.get(FOLDER)
    if not root:
        raise InputError(
            f"the folder of {name} is unknown: give the folder that holds {name}/test.csv.gz with "
            f"--data-dir, or in the environment variable {FOLDER}"
        )
    names = [f"{split or 'test'}{ending}" for ending in (".csv.gz", ".csv", ".parquet")]
    path = next((path for n in names if (path := Path(root) / name / n).is_file()), None)
    if path is None:
        raise InputError(f"no file {str(Path(root) / name / names[0])!r}, nor .csv, nor .parquet")
    return path


def find_data(
    name: str, split: str | None = None, folder: str | os.PathLike[str] | None = None
) -> tuple[str, str | None]:
    """Return the file that is named by itself or as one of SETS, and the split to read of it.

    Raises:
        InputError: there is no such file; suggests the set of a similar name.
    """
    if Path(name).exists():
        return name, split
    if name in SETS:
        return str(find_set(name, split, folder)), None
    if near := difflib.get_close_matches(name, SETS, n=1, cutoff=0.8):
        raise InputError(f"no file {name!r}: did you mean the set {near[0]}?")
    return name, split


def read_references(
    spec: str, *, split: str | None = None, entries: int | None = None
) -> list[ReferenceStructure]:
    """Read entries from a file, `PATH` or `PATH=SPLIT`.

    Args:
        entries: number of entries, spread evenly over the file; all if None.

    Raises:
        InputError: the file cannot be read, or has no such rows.
        CrystallmError: a row has no valid structure.
    """
    from crystallm.sources.splits import read_rows

    if entries is not None and entries < 1:
        raise InputError(f"entries = {entries}: write a whole number from 1")
    rows = [row for row in read_rows(spec) if split is None or (row["split"] or "train") == split]
    if not rows:
        raise InputError(f"{spec!r} has no row{'' if split is None else f' of the split {split!r}'}")
    return [
        ReferenceStructure(row["id"], structure_of(row["text"], f"{spec!r}: {row['id']}", row["format"]))
        for row in spread(rows, entries)
    ]


def structure_of(text: str | None, name: str, form: str = "cif") -> Structure:
    """Parse the structure of an entry of a collection.

    Args:
        text: of the entry; None if it could not be read.
        form: format of the text; see `sources.entry.Entry`.

    Raises:
        CrystallmError: the text is not a structure.
    """
    from crystallm.sources import parsing

    if text is None:
        raise CrystallmError(f"{name} cannot be read: fix or remove it")
    try:
        return parsing.structure(text, form)
    except CrystallmError as error:
        raise CrystallmError(f"{name} is not a structure ({error}): fix or remove it") from None


def spread(items: Sequence[T], max_n: int | None) -> list[T]:
    """Return at most `max_n` items, spread evenly; all for None."""
    if max_n is None or max_n >= len(items):
        return list(items)
    return [items[i * len(items) // max_n] for i in range(max_n)]


def requests_for(
    references: Sequence[Structure], n: int, *, with_group: bool = False, context: int | None = None
) -> list[Request | None]:
    """Return the request for each structure: composition of its conventional cell, and its group if wanted.

    None if the structure has no standard text, or none that fits the context in `orbits`; the entry then
    counts as not matched.
    """
    return list(_requests(references, n, with_group=with_group, context=context))


def _requests(
    references: Sequence[Structure], n: int, *, with_group: bool, context: int | None
) -> Iterator[Request | None]:
    from crystallm.cif import parser, writer
    from crystallm.generation.interpretation import interpret
    from crystallm.generation.request import Request
    from crystallm.grammar import factory

    for structure in references:
        try:
            parsed = parser.parse(writer.to_text(structure))
            request = Request(
                formula="".join(f"{symbol}{count}" for symbol, count in parsed.composition),
                space_group=parsed.space_group if with_group else None,
                n=n,
            )
            group = interpret(request).space_group
            factory.make_grammar(
                "orbits", parsed.composition, None if group is None else group.number, context=context
            )
        except CrystallmError:
            yield None
        else:
            yield request
