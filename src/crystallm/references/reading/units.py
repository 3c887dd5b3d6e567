"""Tokens of crystals that worker processes make in units, which a run folder keeps until all are there."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.datasets import shards
from crystallm.datasets.prepare import local_executor
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.mapping import map_tasks
from crystallm.execution.progress import Progress, no_progress
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.execution.tasks import Failure, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from crystallm.storage.run_folder import RunFolder

UNIT_SIZE = 500
"""Crystals or formulas of a unit."""
_LIMITS = Limits(seconds=900.0)

Task = dict[str, Any]


def facts_of_orbits(dataset: Path, what: str) -> dict[str, Any]:
    """Return the facts of a data set in the language `orbits`.

    Args:
        what: is done in this language alone, for the error.

    Raises:
        InputError: no such data set, or one of another language.
    """
    facts = shards.facts(dataset)
    if facts["language"] != "orbits":
        raise InputError(
            f"the data set {str(dataset)!r} is in the language {facts['language']!r}: {what} in orbits "
            "alone, prepare it with --language orbits"
        )
    return facts


def make_units(
    function: Callable[[Mapping[str, Any]], list[Any]],
    units: Iterable[Task],
    folder: RunFolder,
    *,
    rows: Callable[[Task, list[Any]], list[dict[str, Any]]],
    size: Callable[[Task], int],
    total: int,
    task: str,
    failed: str,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> None:
    """Apply a function of worker processes to the units that a run folder lacks, and store their rows.

    Args:
        units: tasks, to which their `number` is added.
        rows: of the folder, of a task and its value.
        size: of a task, in what the progress counts; total: of all.
        task: what is done, for the progress.
        failed: what then cannot be done, for the error.
        workers: number of processes.

    Raises:
        CrystallmError: a task failed.
    """
    with contextlib.ExitStack() as stack:
        where = executor or stack.enter_context(local_executor(workers))

        def work(numbered: Iterator[tuple[int, Task]], _: Callable[[int], None]) -> Generator[UnitResult]:
            tasks = (unit | {"number": number} for number, unit in numbered)
            for done, value in map_tasks(where, function, tasks, ahead=2 * workers + 2, limits=_LIMITS):
                if isinstance(value, Failure):
                    raise CrystallmError(f"{failed}: {value.reason}")
                yield UnitResult(done["number"], rows(done, value))

        run_units(units, work, folder, task=task, total=total, size=size, progress=progress)


def packed(ids: Sequence[int]) -> str:
    """Return tokens as text, for another process."""
    return base64.b64encode(np.array(ids, "<u2").tobytes()).decode("ascii")


def unpacked(text: str) -> bytes:
    """Return the tokens of `packed` as little-endian uint16."""
    return base64.b64decode(text)
