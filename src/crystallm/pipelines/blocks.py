"""Blocks of consecutive requests, the units in which a run is sampled, stored and resumed.

Block boundaries depend on the requests only, not on batch sizes or the number of processes. A request of many
crystals is split between blocks, unless its crystals are ranked or their valid ones counted. Memory does not
grow with the run: only the current blocks are held. Does not depend on where rows are stored.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import CrystallmError
from crystallm.execution import batching
from crystallm.execution.mapping import map_tasks
from crystallm.execution.resumable import UnitResult
from crystallm.execution.tasks import Failure
from crystallm.generation.analogues import AnyGenerator, library_of, make_generator
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.model import Model
from crystallm.pipelines import samples
from crystallm.references.options import ReferenceOptions

LARGE = 10_000
"""A run of more crystals is large: its rows stay in parts, and crystals have no files of their own."""
BLOCK, LARGE_BLOCK = 16, 512
"""Smallest and largest number of crystals of a block: an interrupted run loses its current blocks."""
BLOCKS = 2000
"""Number of blocks of a run above which they grow: each is a file."""
GROUP = 2048
"""Crystals that this process samples as one group, at least: only the last batch of a group is not full."""
FIRST_GROUP = 256
"""Crystals of the first group; each further group doubles."""
TASK_SIZE = 64
"""Crystals of a task for a worker, at least; two batches, if these are larger."""
AHEAD = 256
"""Tasks that an executor of unknown size has at a time."""
ATTEMPTS = 3
"""Attempts at a task whose worker fails."""

MAX_FAILED = 10
"""Failed tasks after which the run ends."""


class RequestPart(NamedTuple):
    """The samples of a request that belong to one block.

    Attributes:
        number: of the request in the run.
        request: with the n of this part.
        first: index of the first sample of the whole request in the run.
        start: number of the first sample of this part in the request.
    """

    number: int
    request: Request
    first: int
    start: int


class RequestBlock(NamedTuple):
    """Consecutive requests that are sampled and stored together."""

    number: int
    parts: tuple[RequestPart, ...]

    @property
    def n(self) -> int:
        """Number of requested crystals."""
        return sum(part.request.n for part in self.parts)


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """How all blocks of a run are sampled and stored.

    Attributes:
        settings: how to sample.
        selection: which crystals are kept.
        named: whether file names have the number of the request.
        cifs: whether each selected crystal has a file.
        nested: whether each block has a folder for its files.
        known: known crystals that more crystals are made of.
    """

    settings: SamplingOptions
    selection: SelectionOptions
    named: bool
    cifs: bool = True
    nested: bool = False
    known: ReferenceOptions = field(default_factory=ReferenceOptions.defaults)


def block_size(n_crystals: int) -> int:
    """Return the number of crystals of a block in a run of n crystals."""
    return min(LARGE_BLOCK, max(BLOCK, n_crystals // BLOCKS))


def split(requests: Iterable[Request], selection: SelectionOptions, size: int) -> Iterator[RequestBlock]:
    """Split a run into blocks.

    Args:
        requests: all of the run.
        size: crystals of a block; a request that cannot be split may make it larger.
    """
    whole = selection.only_valid or selection.ranking is not None
    parts: list[RequestPart] = []
    number = n_crystals = first = 0
    for request_number, request in enumerate(requests):
        start = 0
        while start < request.n:
            n = request.n if whole else min(request.n - start, size - n_crystals)
            part = request if n == request.n else request.model_copy(update={"n": n})
            parts.append(RequestPart(request_number, part, first, start))
            start += n
            n_crystals += n
            if n_crystals >= size:
                yield RequestBlock(number, tuple(parts))
                parts, n_crystals, number = [], 0, number + 1
        first += selection.attempts(request.n)
    if parts:
        yield RequestBlock(number, tuple(parts))


def sample_here(
    model: Model | None,
    options: BlockOptions,
    blocks: Iterable[RequestBlock],
    *,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[UnitResult]:
    """Sample, check and rank the crystals of blocks in this process.

    Args:
        model: loaded; None where only known crystals are used.
        blocks: drawn as needed.
        executor: where crystals are checked; None opens processes for each check.
        progress: called with the number of crystals so far; with `only_valid`, of valid ones.

    Returns:
        An iterator over the results, in the order of the blocks. Works as it is advanced.

    Raises:
        InputError: while iterating, if there is no grammar for a request.
    """
    largest = max(GROUP, 8 * options.settings.batch_size)
    first = max(FIRST_GROUP, 2 * options.settings.batch_size)
    sizes = (min(largest, first * 2 ** min(k, 20)) for k in itertools.count())
    n_before = 0
    for group in batching.grouped(blocks, lambda block: block.n, sizes):
        parts = [part for block in group for part in block.parts]
        generator = make_generator(
            model,
            [part.request for part in parts],
            options.settings,
            options.selection,
            library_of(options.known),
            reading=options.known.reading,
            first=[part.first for part in parts],
            starts=[part.start for part in parts],
            executor=executor,
        )
        yield from _sample(
            generator,
            options,
            [part.number for part in parts],
            {block.number: len(block.parts) for block in group},
            None if progress is None else _add_before(n_before, progress),
        )
        n_before += sum(block.n for block in group)
        if progress is not None:
            progress(n_before)


def sample_on(
    executor: Executor,
    model: Model | None,
    options: BlockOptions,
    blocks: Iterable[RequestBlock],
    *,
    devices: Sequence[str] = (),
    check_workers: int = 1,
    ahead: int = AHEAD,
    progress: Callable[[int], None] | None = None,
) -> Iterator[UnitResult]:
    """Sample, check and rank the crystals of blocks on the workers of an executor.

    Each worker loads the model by its name. If a worker fails, its blocks are sampled again on another one.

    Args:
        devices: of the processes of a pool, in turn; empty: the one of the settings.
        check_workers: processes for checks beside each worker.
        ahead: unfinished tasks, at most.
        progress: called with the number of requested crystals so far.

    Returns:
        An iterator over the results of the blocks, in any order.

    Raises:
        CrystallmError: at the end of the iteration, if blocks failed.
    """
    common = samples.model_description(model, options.settings, options.known) | {
        "selection": options.selection.model_dump(),
        "named": options.named,
        "cifs": options.cifs,
        "nested": options.nested,
        "devices": list(devices),
        "check_workers": check_workers,
    }
    size = max(TASK_SIZE, 2 * options.settings.batch_size)
    tasks = (common | _to_json(group) for group in batching.grouped(blocks, lambda block: block.n, size))
    n_done, failed = 0, []
    # Without limits: tasks are large, and a GPU driver reserves more addresses than there is memory.
    results = map_tasks(executor, sample_task, tasks, ahead=ahead, limits=None, attempts=ATTEMPTS)
    with contextlib.closing(results):
        for task, value in results:
            if isinstance(value, Failure):
                failed.append(value.reason)
                if len(failed) >= MAX_FAILED:
                    break
                continue
            for block in value:
                yield UnitResult(**block)
            n_done += sum(request["n"] for request in task["requests"])
            if progress is not None:
                progress(n_done)
    if failed:
        raise CrystallmError(
            f"{len(failed)} tasks failed, each {ATTEMPTS} times ({failed[-1]}); with --out, the same command "
            "samples what is missing"
        )


def sample_task(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results of the blocks of a task of `sample_on`, as JSON values. Runs on the worker."""
    selection = SelectionOptions(**task["selection"])
    requests = [Request(**request) for request in task["requests"]]
    generator = samples.make_task_generator(task, requests, selection, check_workers=task["check_workers"])
    options = BlockOptions(
        generator.settings, selection, named=task["named"], cifs=task["cifs"], nested=task["nested"]
    )
    n_parts = dict(zip(task["blocks"], task["n_parts"], strict=True))
    return [result._asdict() for result in _sample(generator, options, task["numbers"], n_parts, None)]


def _to_json(group: Sequence[RequestBlock]) -> dict[str, Any]:
    """Return blocks as JSON values."""
    parts = [part for block in group for part in block.parts]
    return {
        "blocks": [block.number for block in group],
        "n_parts": [len(block.parts) for block in group],
        "numbers": [part.number for part in parts],
        "requests": [part.request.model_dump(exclude_none=True) for part in parts],
        "first": [part.first for part in parts],
        "starts": [part.start for part in parts],
    }


def _sample(
    generator: AnyGenerator,
    options: BlockOptions,
    numbers: Sequence[int],
    n_parts: Mapping[int, int],
    progress: Callable[[int], None] | None,
) -> Iterator[UnitResult]:
    """Yield the results of blocks.

    Args:
        generator: of the parts of all blocks.
        options: of all blocks.
        numbers: of the requests of the parts.
        n_parts: number of parts of each block, by its number.
        progress: as for `Generator.generate`.
    """
    results = samples.sample_requests(
        generator,
        range(len(numbers)),
        options.selection,
        numbers=numbers,
        named=options.named,
        cifs=options.cifs,
        progress=progress,
    )
    for number, n in n_parts.items():
        rows: list[dict[str, Any]] = []
        for result in itertools.islice(results, n):
            rows += map(dict, result.rows)
        if options.nested:
            for row in rows:
                row["file"] = row["file"] and f"{number:05d}/{row['file']}"
        yield UnitResult(number, rows, {row["file"]: row["cif"] for row in rows if row["file"]})


def _add_before(n_before: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    """Return progress that counts what was done before."""
    return lambda done: progress(n_before + done)
