"""Build a library: collections of crystals are read, described and sorted by prototype.

Rows take the steps of `datasets.process_row`: read, ordered, elements, distance, encode. Units of rows are
kept in a folder beside the file until the end, so that a killed build started again does only the others.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.datasets import prepare
from crystallm.datasets.options import PrepareOptions
from crystallm.datasets.process_row import COLUMNS
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.progress import Progress, no_progress
from crystallm.orbits import language
from crystallm.references.library import Library
from crystallm.references.prototypes import LETTERS, PrototypeMember, member_of
from crystallm.sources.splits import place_and_split, read_rows
from crystallm.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from crystallm.references.options import LibraryOptions

SAME_COORDINATES = 5
"""Crystals of one prototype and elements whose parameters differ by less, in steps, are one crystal."""


MAX_TOKENS = 100_000
"""Crystals of more tokens are rejected; there is no network that must hold them."""


@dataclass(frozen=True, slots=True)
class LibraryReport:
    """What became of the rows of a build.

    Attributes:
        read: number of rows.
        crystals: of the library.
        duplicates: rows that equal an earlier one.
        rejected: number of rows by the step that rejects them.
    """

    read: int
    crystals: int
    duplicates: int
    rejected: dict[str, int]


def build(
    options: LibraryOptions,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> LibraryReport:
    """Build the library that the options name, and write it.

    Raises:
        InputError: no input, no file for the library or one that exists, or an input that cannot be read.
        CrystallmError: a file cannot be written, or no row is a crystal.
    """
    if not options.collections:
        raise InputError("no input: name collections of known crystals, such as cifs/ or train.csv.gz")
    if options.library is None:
        raise InputError("--out is missing: name a file for the library, such as library.parquet")
    if options.library.suffix != ".parquet":
        raise InputError(f"--out {str(options.library)!r}: the file of a library ends in .parquet")
    if options.library.exists():
        raise InputError(f"{str(options.library)!r} exists: choose another file, or delete it")
    folder = options.library.with_name(f"{options.library.name}.parts")
    records = _records(options, folder, workers=workers, executor=executor, progress=progress)
    library, report = compile_library(records, options.collections)
    library.write(options.library)
    shutil.rmtree(folder, ignore_errors=True)
    return report


def read_collection(path: str | Path) -> Library:
    """Return the crystals of a collection, of anything that `sources.read` reads, as a library.

    Raises:
        InputError: it cannot be read.
        CrystallmError: no row is a crystal.
    """
    from crystallm.references.options import LibraryOptions

    options = LibraryOptions(collections=(str(path),))
    records = _records(options, None, workers=1, executor=None, progress=no_progress)
    library, _ = compile_library(records, options.collections)
    return library


def _records(
    options: LibraryOptions,
    path: Path | None,
    *,
    workers: int,
    executor: Executor | None,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Yield the processed rows of all inputs, with the columns of `datasets.process_row`."""
    names = [f"{place.name}={split}" for place, split in map(place_and_split, options.collections)]
    steps = PrepareOptions(language="orbits", max_length=MAX_TOKENS)
    folder = RunFolder(path, RunFolder.configuration("references build", options, inputs=names), COLUMNS)
    rows = itertools.chain.from_iterable(map(read_rows, options.collections))
    wanted = (row for row in rows if options.only_split is None or row["split"] == options.only_split)
    prepare.process_all(wanted, steps, folder, workers=workers, executor=executor, progress=progress)
    return folder.stream(["id", "source", "step", "ids"])


def compile_library(
    records: Iterable[dict[str, Any]], collections: Sequence[str]
) -> tuple[Library, LibraryReport]:
    """Return the library of processed rows, and what became of them.

    Args:
        records: with the columns id, source, step and ids of `datasets.process_row`.
        collections: where they are from, for the error.

    Raises:
        CrystallmError: no row is a crystal.
    """
    members: list[tuple[str, str, PrototypeMember]] = []
    known: dict[tuple[object, ...], list[np.ndarray[Any, Any]]] = {}
    rejected: dict[str, int] = {}
    read = duplicates = 0
    for record in records:
        read += 1
        if record["step"] or record["ids"] is None:
            rejected[record["step"]] = rejected.get(record["step"], 0) + 1
            continue
        description = language.from_ids(np.frombuffer(record["ids"], dtype="<u2").tolist())
        if len(description.composition) > len(LETTERS):
            rejected["elements"] = rejected.get("elements", 0) + 1
            continue
        member = member_of(description)
        values = np.array([*member.cell, *itertools.chain.from_iterable(member.coordinates)])
        same = known.setdefault((member.prototype, member.elements), [])
        if any((np.abs(values - other) < SAME_COORDINATES).all() for other in same):
            duplicates += 1
            continue
        same.append(values)
        members.append((record["id"], record["source"], member))
    if not members:
        reasons = ", ".join(f"{n} at {step}" for step, n in rejected.items())
        raise CrystallmError(
            f"{', '.join(map(repr, collections))}: none of {read} rows is a crystal for the library "
            f"({reasons or 'no rows'})"
        )
    library = Library.of(members)
    return library, LibraryReport(read, len(library), duplicates, rejected)
