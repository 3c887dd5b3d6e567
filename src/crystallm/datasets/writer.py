"""The files of a data set folder, in one pass."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystallm.datasets import selection, shards
from crystallm.datasets.process_row import COLUMNS
from crystallm.datasets.report import HTML, JSON, STEPS, Counts, html, make_report
from crystallm.datasets.selection import DUPLICATE, EXCLUDED, KEPT
from crystallm.errors import CrystallmError
from crystallm.sources.splits import SPLITS
from crystallm.storage import files as storage_files
from crystallm.storage import run_folder
from crystallm.storage.tables import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from crystallm.datasets.options import PrepareOptions
    from crystallm.datasets.report import PreparationReport


ROWS = {
    "id": "string", "source": "string", "split": "string", "formula": "string", "cell": "string",
    "space_group": "int16", "n_atoms": "int32",
}  # fmt: skip

REJECTED = {"id": "string", "source": "string", "step": "string", "reason": "string"}


@dataclass(frozen=True)
class _Files:
    """What a row goes to; no writer of tokens with language `none`, none of others if none are asked for."""

    rows: TableWriter
    rejected: TableWriter
    writers: Sequence[shards.SplitWriter]
    others: shards.SplitWriter | None


def write(
    folder: Path,
    parts: Callable[[Sequence[str]], Iterator[pa.Table]],
    fates: selection.RowSelection,
    *,
    choices: PrepareOptions,
    inputs: Sequence[str],
    unreadable_known: int = 0,
) -> PreparationReport:
    """Write all files of a data set folder, `dataset.json` last.

    Args:
        folder: of the data set.
        parts: gives the treated rows with the columns asked for.
        fates: what becomes of them.
        choices: what was asked.
        inputs: names of the collections.
        unreadable_known: entries of the collections to exclude that could not be read.

    Raises:
        CrystallmError: the folder cannot be written, the disk is full.
    """
    counts = Counts()
    with_tokens = choices.language != "none"
    columns = ROWS | ({"tokens": "int64"} if with_tokens else {"cif": "string"})
    try:
        (folder / run_folder.FACTS).unlink(missing_ok=True)
        with ExitStack() as stack:
            rows = stack.enter_context(TableWriter(folder / "rows.parquet", columns))
            rejected = stack.enter_context(TableWriter(folder / "rejected.parquet", REJECTED))
            writers = [
                stack.enter_context(shards.SplitWriter(folder, split)) for split in SPLITS if with_tokens
            ]
            others = (
                stack.enter_context(shards.SplitWriter(folder, shards.EQUIVALENTS))
                if choices.equivalents
                else None
            )
            files = _Files(rows, rejected, writers, others)
            for table in parts(tuple(COLUMNS)):
                _write_part(table, fates, counts, files, choices)
            n_tokens = [writer.n_tokens for writer in writers] or [0] * len(SPLITS)
    except OSError as error:
        raise CrystallmError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    kept = fates.split[fates.fate == KEPT]
    crystals = np.bincount(kept, minlength=3).tolist()
    report = make_report(counts, choices.language, crystals, n_tokens, unreadable_known)
    if others is not None:
        report = replace(report, equivalents=others.n_crystals, told_otherwise=counts.told_otherwise)
    record = asdict(report)
    storage_files.write_json(folder / JSON, record)
    storage_files.write_atomically(folder / HTML, html(report, choices, inputs, counts.lengths).encode())
    facts = {name: record[name] for name in ("language", "vocab_size")}
    facts |= {"inputs": [Path(name).name for name in inputs], "crystals": report.crystals}
    facts |= {"tokens": report.tokens, "rejected": sum(report.rejected.values())}
    facts |= {"duplicates": report.duplicates, "read": report.read}
    storage_files.write_atomically(folder / run_folder.FACTS, (json.dumps(facts, indent=2) + "\n").encode())
    return report


def _write_part(
    table: pa.Table,
    fates: selection.RowSelection,
    counts: Counts,
    files: _Files,
    choices: PrepareOptions,
) -> None:
    written: list[bytes] = []
    for record in table.to_pylist():
        number = counts.read
        counts.read += 1
        fate, origin = int(fates.fate[number]), {name: record[name] for name in ("id", "source")}
        if fate != KEPT:
            step = record["step"] or STEPS[fate]
            reason = record["reason"] or fates.reasons[number]
            files.rejected.add(origin | {"step": step, "reason": reason})
            counts.steps[step] += 1
            if fate != DUPLICATE:
                what = reason.partition(": ")[0] if fate == EXCLUDED else reason[:60]
                counts.reasons[f"{step}: {what}"] += 1
            continue
        split = int(fates.split[number])
        row = origin | {"split": SPLITS[split], "tokens": record["n_tokens"], "cif": record["cif"]}
        row |= {name: record[name] for name in ("formula", "cell", "space_group", "n_atoms")}
        files.rows.add({name: row[name] for name in files.rows.names})
        counts.elements.update(set(re.findall(r"[A-Z][a-z]?", record["formula"])))
        if record["space_group"] is not None:
            counts.groups[record["space_group"]] += 1
        if files.writers:
            if files.others is not None and SPLITS[split] == "train":
                counts.told_otherwise += _tell(
                    record["ids"], files.writers[split].n_crystals, files.others, choices
                )
            files.writers[split].add(record["ids"])
            counts.lengths[record["n_tokens"]] += 1
            written.append(record["ids"])
    counts.used += np.bincount(np.frombuffer(b"".join(written), dtype="<u2"), minlength=len(counts.used))


def _tell(content: bytes, number: int, others: shards.SplitWriter, choices: PrepareOptions) -> int:
    """Write equivalent descriptions of a training crystal; how many differ from its own."""
    from crystallm.orbits import augmentation

    ids = np.frombuffer(content, dtype="<u2").tolist()
    found = augmentation.augmentations(ids, choices.equivalents, seed=choices.seed, number=number)
    for other in found:
        others.add(np.array(other, dtype="<u2").tobytes())
    return sum(other != ids for other in found)
