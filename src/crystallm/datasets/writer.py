"""Write the files of a data set folder, in one pass over the processed rows.

Does not depend on how the rows were processed and selected.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.datasets import properties, shards
from crystallm.datasets.process_row import COLUMNS
from crystallm.datasets.report import HTML, JSON, STEPS, Counts, html, make_report
from crystallm.datasets.selection import RowStatus
from crystallm.errors import InputError
from crystallm.sources.splits import SPLITS
from crystallm.storage import files
from crystallm.storage.run_folder import FACTS
from crystallm.storage.tables import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from crystallm.datasets.options import PrepareOptions
    from crystallm.datasets.report import PreparationReport
    from crystallm.datasets.selection import RowSelection

ROWS = {
    "id": "string", "source": "string", "split": "string", "formula": "string", "cell": "string",
    "space_group": "int16", "n_atoms": "int32", "note": "string",
}  # fmt: skip
REJECTED = {"id": "string", "source": "string", "step": "string", "reason": "string"}


def write(
    folder: Path,
    parts: Callable[[Sequence[str]], Iterator[pa.Table]],
    selection: RowSelection,
    *,
    options: PrepareOptions,
    inputs: Sequence[str],
    n_unreadable: int = 0,
) -> PreparationReport:
    """Write all files of a data set folder, `dataset.json` last.

    Args:
        parts: returns the tables of processed rows with the columns given.
        n_unreadable: number of excluded entries that could not be read.
    """
    (folder / FACTS).unlink(missing_ok=True)
    units = {name: properties.UNITS[name] for name in properties.COMPUTED}
    units |= properties.parse_properties(options.properties)
    run = _DatasetWriter(selection, options, tuple(units))
    with files.saying(f"{str(folder)!r} cannot be written"), ExitStack() as stack:
        run.open(folder, stack)
        for table in parts(tuple(COLUMNS)):
            run.add_part(table)
    kept = selection.split[selection.status == RowStatus.KEPT]
    crystals = np.bincount(kept, minlength=len(SPLITS)).tolist()
    n_tokens = [writer.n_tokens for writer in run.writers] or [0] * len(SPLITS)
    report = make_report(run.counts, options.language, crystals, n_tokens, n_unreadable)
    if run.augmented is not None:
        report = replace(report, augmentations=run.augmented.n_crystals, different=run.counts.different)
    found = {name: {"unit": units[name], **properties.summary(run.values[name])} for name in units}
    report = replace(report, properties=found)
    record = asdict(report)
    files.write_json(folder / JSON, record)
    files.write_atomically(folder / HTML, html(report, options, inputs, run.counts.lengths).encode())
    facts = {name: record[name] for name in ("language", "vocab_size")}
    facts |= {"inputs": [Path(name).name for name in inputs], "crystals": report.crystals}
    facts |= {"properties": units}
    facts |= {"tokens": report.tokens, "rejected": sum(report.rejected.values())}
    facts |= {"duplicates": report.duplicates, "read": report.read}
    files.write_atomically(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode())
    return report


class _DatasetWriter:
    """Writes each row to the files of its status and split, and counts.

    Attributes:
        augmented: writer of equivalent descriptions; None where none are requested.
        values: known values of each property.
    """

    def __init__(self, selection: RowSelection, options: PrepareOptions, names: Sequence[str]) -> None:
        self.counts = Counts()
        self.writers: list[shards.SplitWriter] = []
        self.augmented: shards.SplitWriter | None = None
        self.values: dict[str, list[float]] = {name: [] for name in names}
        self._selection, self._options = selection, options

    def open(self, folder: Path, stack: ExitStack) -> None:
        """Open the files, which are complete when the stack is closed without an error."""
        with_tokens = self._options.language != "none"
        columns = ROWS | ({"tokens": "int64"} if with_tokens else {"cif": "string"})
        if clash := sorted(columns.keys() & self.values.keys()):
            raise InputError(f"property {clash[0]!r}: a data set has a column of that name, rename yours")
        columns |= dict.fromkeys(self.values, "float64")
        self._rows = stack.enter_context(TableWriter(folder / "rows.parquet", columns))
        self._rejected = stack.enter_context(TableWriter(folder / "rejected.parquet", REJECTED))
        if with_tokens:
            self.writers = [stack.enter_context(shards.SplitWriter(folder, split)) for split in SPLITS]
            for writer in self.writers:
                writer.n_properties = len(self.values)
        if self._options.augmentations:
            self.augmented = stack.enter_context(shards.SplitWriter(folder, shards.EQUIVALENTS))

    def add_part(self, table: pa.Table) -> None:
        """Write the rows of a part."""
        ids: list[bytes] = []
        for record in table.to_pylist():
            number = self.counts.read
            self.counts.read += 1
            if self._selection.status[number] == RowStatus.KEPT:
                self._add_kept(record, int(self._selection.split[number]))
                if self.writers:
                    ids.append(record["ids"])
            else:
                self._add_rejected(record, number)
        used = np.frombuffer(b"".join(ids), dtype="<u2")
        self.counts.used += np.bincount(used, minlength=len(self.counts.used))

    def _add_rejected(self, record: dict[str, Any], number: int) -> None:
        status = RowStatus(self._selection.status[number])
        step = record["step"] or STEPS[status]
        reason = record["reason"] or self._selection.reasons[number]
        self._rejected.add({"id": record["id"], "source": record["source"], "step": step, "reason": reason})
        self.counts.steps[step] += 1
        if status != RowStatus.DUPLICATE:
            kind = reason.partition(": ")[0] if status == RowStatus.EXCLUDED else reason[:60]
            self.counts.reasons[f"{step}: {kind}"] += 1

    def _add_kept(self, record: dict[str, Any], split: int) -> None:
        values = json.loads(record["properties"])
        row = record | {"split": SPLITS[split], "tokens": record["n_tokens"]}
        row |= {name: values.get(name) for name in self.values}
        for name, known in self.values.items():
            if name in values:
                known.append(values[name])
        self._rows.add({name: row[name] for name in self._rows.names})
        self.counts.elements.update(set(re.findall(r"[A-Z][a-z]?", record["formula"])))
        if record["space_group"] is not None:
            self.counts.groups[record["space_group"]] += 1
        if self.writers:
            if self.augmented is not None and SPLITS[split] == "train":
                self._add_augmentations(record["ids"], self.writers[split].n_crystals)
            self.writers[split].add(record["ids"], [values.get(name, np.nan) for name in self.values])
            self.counts.lengths[record["n_tokens"]] += 1

    def _add_augmentations(self, content: bytes, number: int) -> None:
        """Write equivalent descriptions of a training crystal."""
        from crystallm.orbits import augmentation

        ids = np.frombuffer(content, dtype="<u2").tolist()
        options = self._options
        for equivalent in augmentation.augmentations(
            ids, options.augmentations, seed=options.seed, number=number
        ):
            assert self.augmented is not None  # noqa: S101 - else this is not called
            self.augmented.add(np.array(equivalent, dtype="<u2").tobytes())
            self.counts.different += equivalent != ids
