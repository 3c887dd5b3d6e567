"""Requests written, judged, ranked and kept as rows and CIFs: in this process, or on an executor's workers.

A unit of work is one request of a run. Its rows are the same wherever it is done: its samples have the
indices that they have in the whole run. Knows what a row of results holds; refuses to know where rows are
kept.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from crystallm import answers, workers
from crystallm.asking import Request
from crystallm.crystal import COLUMNS
from crystallm.errors import CrystallmError, InputError
from crystallm.generation import Generator, Settings, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from crystallm.checkpoint import Model
    from crystallm.crystal import Crystal

JUDGED_TOGETHER = 256
"""Crystals that are judged, ranked and kept together: a judging process starts in seconds."""
SENT_TOGETHER = 64
"""Crystals of requests that travel to a worker together, at least; and so many as a batch has."""
AHEAD = 1000
"""Tasks that a cluster has at a time, done or not."""


class Written(NamedTuple):
    """What a unit gave.

    Attributes:
        unit: number of the request.
        rows: one a crystal, with the columns of `crystal.COLUMNS`.
        cifs: of the request's answers, by file name.
    """

    unit: int
    rows: list[dict[str, Any]]
    cifs: dict[str, str]


def write(
    generator: Generator,
    todo: Sequence[int],
    selection: answers.Selection,
    *,
    numbers: Sequence[int] | None = None,
    named: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Written]:
    """Write units in this process.

    Args:
        generator: of the run's requests.
        todo: which of them.
        selection: what is kept.
        numbers: of the requests in the run, where the generator has a part of it.
        named: whether files are named after the request too; None: if there are several.
        progress: as for `Generator.write`.

    Raises:
        InputError: at once, if no rule can be made for a request.
    """
    several = len(generator.plans) > 1 if named is None else named
    writing = generator.write_valid if selection.valid else generator.write
    written = writing(todo, progress=progress)

    def units() -> Iterator[Written]:
        for together in _together(zip(todo, written, strict=True)):
            if not selection.valid:  # else they have been judged
                answers.judge([crystal for _, found in together for crystal in found])
            if selection.ranking is not None:
                answers.rank([found for _, found in together], selection.ranking)
            for unit, crystals in together:
                number = unit if numbers is None else numbers[unit]
                request = generator.plans[unit].request
                yield _written(number, request, crystals, selection, named=several)

    return units()


def write_on(
    executor: Executor,
    generator: Generator,
    todo: Sequence[int],
    selection: answers.Selection,
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Written]:
    """Write units on an executor's workers, each of which loads the model by its name.

    Args:
        executor: where.
        generator: as for `write`; it writes nothing itself.
        todo: as for `write`.
        selection: as for `write`.
        progress: as for `write`.

    Returns:
        An iterator over the units as they are done, in any order.

    Raises:
        CrystallmError: while drawing, behind all that could be done: units were lost.
    """
    requests = [plan.request for plan in generator.plans]
    size = max(SENT_TOGETHER, generator.settings.batch_size)
    same = described(generator) | {"selection": selection.model_dump(), "named": len(requests) > 1}
    tasks = [
        same
        | {
            "units": group,
            "requests": [requests[unit].model_dump() for unit in group],
            "first": [generator.first[unit] for unit in group],
        }
        for group in grouped(todo, [requests[unit].n for unit in todo], size)
    ]
    done = 0
    for task, found in finished(executor, write_task, tasks):
        done += sum(request["n"] for request in task["requests"])
        if progress is not None:
            progress(done)
        yield from (Written(**unit) for unit in found)


def write_task(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The worker's side of `write_on`: units as plain values."""
    requests = [Request(**request) for request in task["requests"]]
    generator = generator_of(task, requests, answers.Selection(**task["selection"]))
    with workers.kept():
        found = write(
            generator,
            range(len(requests)),
            answers.Selection(**task["selection"]),
            numbers=task["units"],
            named=task["named"],
        )
        return [written._asdict() for written in found]


# -- what every task that writes needs -----------------------------------------------------------------------


def described(generator: Generator) -> dict[str, Any]:
    """What a worker needs to write as this generator does, besides requests and their first indices."""
    from crystallm import checkpoint

    name = generator.settings.model
    bundled = name in checkpoint.list_models()
    return {
        "model": name if bundled else str(checkpoint.find(name).resolve()),
        "weights": fingerprint(generator.model),
        "settings": generator.settings.model_dump(),
    }


def generator_of(
    task: Mapping[str, Any], requests: Sequence[Request], selection: answers.Selection | None = None
) -> Generator:
    """The generator that a task describes, on the worker.

    Raises:
        CheckpointError: the worker does not see the model.
        InputError: it sees another one of this name.
    """
    import torch

    torch.set_num_threads(1)  # workers stand side by side, one a core
    settings = Settings(**task["settings"])
    model = _model(task["model"], settings.device)
    if fingerprint(model) != task["weights"]:
        raise InputError(f"the workers see other weights at {task['model']!r}: put the same ones there")
    return Generator(model, requests, settings, selection, task["first"])


@lru_cache(maxsize=1)
def _model(name: str, device: str) -> Model:
    from crystallm.checkpoint import load_model

    return load_model(name, device=device)


def grouped(items: Sequence[int], weights: Sequence[int], size: int) -> Iterator[list[int]]:
    """Items in groups whose weights add up to a size at least; the last may be lighter."""
    group: list[int] = []
    weight = 0
    for item, own in zip(items, weights, strict=True):
        group.append(item)
        weight += own
        if weight >= size:
            yield group
            group, weight = [], 0
    if group:
        yield group


def finished(
    executor: Executor, function: Callable[[Any], Any], tasks: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Any]]:
    """(Task, value) as they finish; those that are lost are told of behind all others.

    Raises:
        CrystallmError: some were lost.
    """
    lost: list[str] = []
    for i, found in workers.stream(executor, function, tasks, ahead=AHEAD):
        if isinstance(found, workers.Lost):
            lost.append(found.reason)
        else:
            yield tasks[i], found
    if lost:
        raise CrystallmError(
            f"{len(lost)} of {len(tasks)} tasks were lost on the cluster ({lost[0]}); with --out, the same "
            "command does what is missing"
        )


# -- rows ----------------------------------------------------------------------------------------------------


def kept(rows: Sequence[dict[str, Any]], selection: answers.Selection) -> list[dict[str, Any]]:
    """The rows of a request that are its answers, in their order."""
    ranks, clusters = [row["rank"] for row in rows], [row["cluster"] for row in rows]
    return [rows[i] for i in answers.kept(ranks, clusters, [bool(row["valid"]) for row in rows], selection)]


def by_request(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of each request, as they stand one behind the other."""
    return [list(found) for _, found in itertools.groupby(rows, key=lambda row: row["request"])]


def _together(units: Iterator[tuple[int, list[Crystal]]]) -> Iterator[list[tuple[int, list[Crystal]]]]:
    """The units in groups that are judged and ranked together."""
    group: list[tuple[int, list[Crystal]]] = []
    for unit in units:
        group.append(unit)
        if sum(len(crystals) for _, crystals in group) >= JUDGED_TOGETHER:
            yield group
            group = []
    if group:
        yield group


def _written(
    unit: int, request: Request, crystals: Sequence[Crystal], selection: answers.Selection, *, named: bool
) -> Written:
    """Rows of one request, and the CIFs of its answers by file name."""
    rows = []
    for sample, crystal in enumerate(crystals):
        row = crystal.row() | {
            "request": unit,
            "sample": sample,
            "asked_formula": request.formula,
            "asked_z": None if request.z == "auto" else request.z,
            "asked_space_group": request.space_group,
            "prompt": request.prompt,
        }
        rows.append({name: row.get(name) for name in COLUMNS})
    cifs = {}
    for row in kept(rows, selection):
        if row["cif"]:
            place = f"{unit:05d}-" if named else ""
            row["file"] = f"{place}{row['formula']}-sg{row['space_group_number']}-{row['sample']:04d}.cif"
            cifs[row["file"]] = row["cif"]
    return Written(unit, rows, cifs)
