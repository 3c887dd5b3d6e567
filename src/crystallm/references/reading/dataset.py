"""Add their relatives to the crystals of a data set, for a network that reads them.

Writes the splits `train-relatives` and `val-relatives` beside `train` and `val` (see `datasets.shards`), and
the number of relatives into `dataset.json`. Units of crystals are kept in a folder beside the data set until
the end, so that the same command goes on with a killed run.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm.datasets import shards
from crystallm.execution.progress import Progress, no_progress
from crystallm.language import get_language
from crystallm.references.load import fingerprint, load_library
from crystallm.references.reading.tokens import relatives_of
from crystallm.references.reading.units import UNIT_SIZE, facts_of_orbits, make_units, packed, unpacked
from crystallm.storage import files
from crystallm.storage.run_folder import FACTS, RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

SPLITS = ("train", "val")
_COLUMNS = {"split": "string", "ids": "binary"}


class RelativesReport(NamedTuple):
    """What was found for the crystals of a data set.

    Attributes:
        crystals: of the splits `train` and `val`.
        without: those that have no relative.
    """

    crystals: int
    without: int


def add_relatives(
    dataset: Path,
    references: Sequence[Path],
    n: int,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> RelativesReport:
    """Look up the relatives of the crystals of a data set, and write them into its folder.

    Args:
        dataset: folder of the data set, in the language `orbits`.
        references: libraries or collections of known crystals; none: the library of the package.
        n: largest number of relatives of a crystal.
        workers: number of processes.

    Raises:
        InputError: no such data set, one of another language, or no such library.
        CrystallmError: the folder cannot be written.
    """
    facts = facts_of_orbits(dataset, "relatives are read")
    paths = [str(path.resolve()) for path in references]
    parts = dataset.with_name(f"{dataset.name}.relatives.parts")
    library = fingerprint(load_library(paths))
    about = {"n": n, "library": library, "tokens": facts.get("tokens")}
    folder = RunFolder(parts, RunFolder.configuration("references relatives", **about), _COLUMNS)
    make_units(
        look_up,
        (unit | {"references": paths, "n": n} for unit in _units(dataset)),
        folder,
        rows=lambda task, found: [{"split": task["split"], "ids": unpacked(ids)} for ids in found],
        size=lambda task: len(task["crystals"]),
        total=sum(len(shards.load(dataset, split)) for split in SPLITS),
        task="looking up relatives",
        failed="the relatives of crystals cannot be looked up",
        workers=workers,
        executor=executor,
        progress=progress,
    )
    report = _write(dataset, folder)
    content = json.dumps(facts | {"relatives": n}, indent=2) + "\n"
    files.write_atomically(dataset / FACTS, content.encode())
    shutil.rmtree(parts, ignore_errors=True)
    return report


def _units(dataset: Path) -> Iterator[dict[str, Any]]:
    """Yield the crystals of the splits in units: the split, and the tokens of each crystal."""
    for split in SPLITS:
        crystals = shards.load(dataset, split)
        for start in range(0, len(crystals), UNIT_SIZE):
            rows = range(start, min(start + UNIT_SIZE, len(crystals)))
            yield {"split": split, "crystals": [packed(crystals.crystal(i).tolist()) for i in rows]}


def look_up(task: Mapping[str, Any]) -> list[str]:
    """Return the packed tokens of the relatives of some crystals, in a worker process."""
    library = load_library(task["references"])
    found = []
    for content in task["crystals"]:
        ids = np.frombuffer(unpacked(content), "<u2").tolist()
        counts, _ = get_language("orbits").read_prompt(ids)
        found.append(packed(relatives_of(library, counts, task["n"])))
    return found


def _write(dataset: Path, folder: RunFolder) -> RelativesReport:
    """Write the splits of relatives."""
    n_crystals = n_without = 0
    with files.saying(f"{str(dataset)!r} cannot be written"):
        for split in SPLITS:
            with shards.SplitWriter(dataset, shards.relatives_split(split)) as writer:
                for record in folder.stream(["split", "ids"]):
                    if record["split"] == split:
                        writer.add(record["ids"])
                        n_crystals += 1
                        n_without += not record["ids"]
    return RelativesReport(n_crystals, n_without)
