"""Write prompts for known crystals: composition of the conventional cell, and space group on request.

Reads data set folders and collections; writes tables for `crystallm generate --requests`. Does not depend on
models.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crystallm.datasets.options import PromptOptions
from crystallm.datasets.prepare import local_executor, read_crystals
from crystallm.errors import InputError
from crystallm.execution.progress import Progress, no_progress
from crystallm.storage.files import saying
from crystallm.storage.run_folder import FACTS


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one crystal.

    Attributes:
        cell: composition of its conventional cell, `Na4Cl4`; "" where it is not known.
        space_group: number; None if it is not part of the prompt.
        problem: why the cell is not known; "" if it is.
    """

    id: str
    cell: str
    space_group: int | None = None
    problem: str = ""


def read(options: PromptOptions, *, workers: int = 1, progress: Progress = no_progress) -> Iterator[Prompt]:
    """Yield prompts for the crystals of a data set folder or a collection, in their order.

    Raises:
        InputError: the source cannot be read, has no such split, or is a collection and a split is given.
    """
    source, split = options.path, options.split
    if source is None:
        raise InputError("no crystals: see crystallm prompts --help")
    if (Path(source) / FACTS).is_file():
        yield from _from_data_set(Path(source), split or "test", with_group=options.with_group)
        return
    if split is not None:
        raise InputError(f"split = {split!r}: {source!r} is no data set folder, all its rows are used")
    with local_executor(workers) as executor, progress("reading crystals", None) as advance:
        records = read_crystals(source, executor, workers, options.symprec, symmetry=True)
        for done, record in enumerate(records, start=1):
            problem = f"{record['step']}: {record['reason']}" if record["step"] else ""
            group = record["space_group"] if options.with_group else None
            yield Prompt(record["id"], record["cell"] or "", group, problem)
            advance(done)


def _from_data_set(folder: Path, split: str, *, with_group: bool) -> Iterator[Prompt]:
    from pyarrow import parquet

    columns = ["id", "split", "cell", "space_group"]
    n = 0
    with parquet.ParquetFile(folder / "rows.parquet") as file:
        if not set(columns) <= set(file.schema_arrow.names):
            raise InputError(f"rows.parquet in {str(folder)!r} has no cells: prepare the data again")
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                if row["split"] != split:
                    continue
                n += 1
                if row["cell"] is None:
                    raise InputError(
                        f"{str(folder)!r} was prepared without symmetry: give the collection itself"
                    )
                yield Prompt(row["id"], row["cell"], row["space_group"] if with_group else None)
    if not n:
        raise InputError(f"{str(folder)!r} has no crystal of the split {split!r}: give train, val or test")


def write(prompts: Iterable[Prompt], path: Path) -> tuple[int, list[Prompt]]:
    """Write prompts to a CSV file with columns id, formula, z, space_group.

    Returns:
        The number of prompts written, and those that could not be, each with its problem.

    Raises:
        InputError: another ending.
    """
    from crystallm.crystallography import formula, space_groups

    if path.suffix.lower() != ".csv":
        raise InputError(f"out = {str(path)!r}: name a file that ends in .csv")
    n, skipped = 0, []
    new = path.with_name(f".{path.name}.tmp")
    with saying(f"{str(path)!r} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("id", "formula", "z", "space_group"))
                for prompt in prompts:
                    if prompt.problem:
                        skipped.append(prompt)
                        continue
                    group = "" if prompt.space_group is None else space_groups.get(prompt.space_group).symbol
                    # Without Z, a cell of one formula unit would leave it open.
                    writer.writerow((prompt.id, prompt.cell, formula.cell(prompt.cell).z, group))
                    n += 1
            new.replace(path)
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
    return n, skipped
