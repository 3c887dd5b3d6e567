"""Known crystals: the entries of a benchmark, where its files are, and what a model is asked for each.

Nothing heavy is imported here: the commands' help comes past.
"""

from __future__ import annotations

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
"""Environment variable that names the folder of these sets."""


@dataclass(frozen=True, slots=True)
class Known:
    """An entry: its id in its collection, and its structure as that holds it."""

    id: str
    structure: Structure


def find_set(name: str, split: str | None = None, folder: str | os.PathLike[str] | None = None) -> Path:
    """The file of an official split, `FOLDER/perov_5/test.csv.gz`.

    Args:
        name: one of SETS.
        split: `test` (default), `val` or `train`.
        folder: that holds the sets; by default what CRYSTALLM_DATA names.

    Raises:
        InputError: it is not there; the message says where it was looked for.
    """
    place = folder or os.environ.get(FOLDER)
    if not place:
        raise InputError(
            f"where is {name}? Name the folder that holds {name}/test.csv.gz with --data-dir, or in the "
            f"environment variable {FOLDER}"
        )
    names = [f"{split or 'test'}{ending}" for ending in (".csv.gz", ".csv", ".parquet")]
    found = next((path for n in names if (path := Path(place) / name / n).is_file()), None)
    if found is None:
        raise InputError(f"no file {str(Path(place) / name / names[0])!r}, nor .csv, nor .parquet")
    return found


def read_known(spec: str, *, split: str | None = None, entries: int | None = None) -> list[Known]:
    """Entries of a file, `PATH` or `PATH=SPLIT`.

    Args:
        spec: as for `crystallm prepare`.
        split: only rows of this split.
        entries: so many, evenly spread over the file; all if None.

    Raises:
        InputError: a file that cannot be read, or has no such rows.
        CrystallmError: a row that is no structure.
    """
    from crystallm.sources.splits import read_rows

    if entries is not None and entries < 1:
        raise InputError(f"entries = {entries}: write a whole number from 1")
    rows = [row for row in read_rows(spec) if split is None or (row["split"] or "train") == split]
    if not rows:
        raise InputError(f"{spec!r} has no row{'' if split is None else f' of the split {split!r}'}")
    return [
        Known(row["id"], structure_of(row["text"], f"{spec!r}: {row['id']}", row["format"]))
        for row in spread(rows, entries)
    ]


def structure_of(text: str | None, name: str, form: str = "cif") -> Structure:
    """The structure of an entry of a collection.

    Args:
        text: of the entry; None where it could not be read.
        name: of the entry.
        form: of the text; see `sources.Entry`.

    Raises:
        CrystallmError: it is none; the message begins with the name.
    """
    from crystallm.sources import parsing

    if text is None:
        raise CrystallmError(f"{name} cannot be read: mend or remove it")
    try:
        return parsing.structure(text, form)
    except CrystallmError as error:
        raise CrystallmError(f"{name} is no structure ({error}): mend or remove it") from None


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """At most so many of the items, evenly spread over them; all for None."""
    if most is None or most >= len(items):
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def known_structures(spec: str, *, split: str | None = None, entries: int | None = None) -> list[Structure]:
    """The structures of `read_known`."""
    return [known.structure for known in read_known(spec, split=split, entries=entries)]


def requests_for(
    truths: Sequence[Structure], n: int, *, with_group: bool = False, context: int | None = None
) -> list[Request | None]:
    """The request for each known structure: its standard text's composition, and its group if wanted.

    None where there is no such text, or none that a model with this context could write in `orbits`: the
    entry then counts as not found.
    """
    return list(_requests(truths, n, with_group=with_group, context=context))


def _requests(
    truths: Sequence[Structure], n: int, *, with_group: bool, context: int | None
) -> Iterator[Request | None]:
    from crystallm.cif import parser, writer
    from crystallm.generation.interpretation import interpret
    from crystallm.generation.request import Request
    from crystallm.grammar import factory

    for truth in truths:
        try:
            known = parser.parse(writer.to_text(truth))
            request = Request(
                formula="".join(f"{symbol}{count}" for symbol, count in known.composition),
                space_group=known.space_group if with_group else None,
                n=n,
            )
            group = interpret(request).space_group
            factory.make_grammar(
                "orbits", known.composition, None if group is None else group.number, context=context
            )
        except CrystallmError:
            yield None
        else:
            yield request
