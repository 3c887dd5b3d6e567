"""A run of any number of requests, cut into blocks that are written one by one, here or on other processes.

A block holds consecutive requests, and is what is done or not done of a run. Where blocks begin depends on
the requests alone: neither on the size of batches nor on how many processes there are. A request of many
crystals is parted between blocks, unless its crystals have to be seen together, to rank them or to count the
valid ones. No more is held than the blocks under way: memory does not grow with the run. Refuses to know
where rows are kept.
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
"""A run of more crystals is large: its rows stay in parts, and no file is written for each crystal."""
BLOCK, LARGE_BLOCK = 16, 512
"""Crystals of a block, at least and at most: what is under way is lost where a run is interrupted."""
BLOCKS = 2000
"""Blocks of a run, at most, before they grow: each is a file."""
WRITTEN_TOGETHER = 2048
"""Crystals that this process writes without a pause, at least: where the last of them are written, a batch
is not full."""
FIRST_TOGETHER = 256
"""The same at the beginning, and then twice as many each time: what is open is weighed for all of them
before the first is written."""
SENT_TOGETHER = 64
"""Crystals that travel to a worker together, at least; and as many as two batches have."""
AHEAD = 256
"""Tasks that an executor of unknown size has at a time, done or not."""
ATTEMPTS = 3
"""Attempts at a task whose worker fails."""

MAX_FAILED = 10
"""Tasks that fail for good before the run is given up."""


class Piece(NamedTuple):
    """Samples of one request that belong to one block.

    Attributes:
        request: as asked, but for so many crystals as the piece has.
        first: index of the first sample of the whole request in the run.
        start: number of the piece's first sample in the request.
    """

    unit: int
    request: Request
    first: int
    start: int


class Block(NamedTuple):
    """What is written, kept and done again together."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def n(self) -> int:
        """Crystals that are asked for."""
        return sum(piece.request.n for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Writing:
    """How all blocks of a run are written.

    Attributes:
        named: whether files are named after the request, too.
        nested: whether those of each block are in a folder of their own.
        known: whether crystals are made of known ones, too.
    """

    settings: SamplingOptions
    selection: SelectionOptions
    named: bool
    cifs: bool = True
    nested: bool = False
    known: ReferenceOptions = field(default_factory=ReferenceOptions.defaults)


def block_size(n_crystals: int) -> int:
    """Crystals of a block in a run of so many."""
    return min(LARGE_BLOCK, max(BLOCK, n_crystals // BLOCKS))


def blocks(requests: Iterable[Request], selection: SelectionOptions, size: int) -> Iterator[Block]:
    """Cut a run into blocks.

    Args:
        size: crystals of a block; a request that cannot be parted may make it larger.
    """
    whole = selection.only_valid or selection.ranking is not None
    pieces: list[Piece] = []
    number = held = first = 0
    for unit, request in enumerate(requests):
        start = 0
        while start < request.n:
            n = request.n if whole else min(request.n - start, size - held)
            part = request if n == request.n else request.model_copy(update={"n": n})
            pieces.append(Piece(unit, part, first, start))
            start += n
            held += n
            if held >= size:
                yield Block(number, tuple(pieces))
                pieces, held, number = [], 0, number + 1
        first += selection.attempts(request.n)
    if pieces:
        yield Block(number, tuple(pieces))


def write(
    model: Model | None,
    writing: Writing,
    todo: Iterable[Block],
    *,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[UnitResult]:
    """Write blocks in this process.

    Args:
        model: loaded; None where known crystals alone are used.

    Returns:
        An iterator over what they gave, in their order. The work is done as it is drawn from.

    Raises:
        InputError: while drawing, if no rule can be made for a request.
    """
    most = max(WRITTEN_TOGETHER, 8 * writing.settings.batch_size)
    first = max(FIRST_TOGETHER, 2 * writing.settings.batch_size)
    sizes = (min(most, first * 2 ** min(k, 20)) for k in itertools.count())
    before = 0
    for group in batching.grouped(todo, lambda block: block.n, sizes):
        pieces = [piece for block in group for piece in block.pieces]
        generator = make_generator(
            model,
            [piece.request for piece in pieces],
            writing.settings,
            writing.selection,
            library_of(writing.known),
            first=[piece.first for piece in pieces],
            starts=[piece.start for piece in pieces],
            executor=executor,
        )
        yield from _written(
            generator,
            writing,
            [piece.unit for piece in pieces],
            {block.number: len(block.pieces) for block in group},
            None if progress is None else lambda n, before=before: progress(before + n),  # type: ignore[misc]
        )
        before += sum(block.n for block in group)
        if progress is not None:
            progress(before)


def write_on(
    executor: Executor,
    model: Model | None,
    writing: Writing,
    todo: Iterable[Block],
    *,
    devices: Sequence[str] = (),
    judges: int = 1,
    ahead: int = AHEAD,
    progress: Callable[[int], None] | None = None,
) -> Iterator[UnitResult]:
    """Write blocks on an executor's workers, each of which loads the model by its name.

    A worker that is lost costs its blocks another time, on another one.

    Args:
        devices: which the processes of a pool take in turn; none: that of the settings.
        judges: processes that judge beside each worker.
        ahead: tasks that are drawn and not done, at most.

    Returns:
        An iterator over what the blocks gave, in any order.

    Raises:
        CrystallmError: while drawing, behind all that could be done: blocks were lost.
    """
    same = samples.described(model, writing.settings, writing.known) | {
        "selection": writing.selection.model_dump(),
        "named": writing.named,
        "cifs": writing.cifs,
        "nested": writing.nested,
        "devices": list(devices),
        "judges": judges,
    }
    size = max(SENT_TOGETHER, 2 * writing.settings.batch_size)
    tasks = (same | _packed(group) for group in batching.grouped(todo, lambda block: block.n, size))
    n_done, failed = 0, []
    # Without limits: tasks are large, and a GPU driver reserves more addresses than there is memory.
    results = map_tasks(executor, write_task, tasks, ahead=ahead, limits=None, attempts=ATTEMPTS)
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
            "does what is missing"
        )


def write_task(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The worker's side of `write_on`: blocks as plain values."""
    selection = SelectionOptions(**task["selection"])
    requests = [Request(**request) for request in task["requests"]]
    generator = samples.generator_of(task, requests, selection, checks=task["judges"])
    writing = Writing(
        generator.settings, selection, named=task["named"], cifs=task["cifs"], nested=task["nested"]
    )
    n_pieces = dict(zip(task["blocks"], task["pieces"], strict=True))
    return [result._asdict() for result in _written(generator, writing, task["units"], n_pieces, None)]


def _packed(group: Sequence[Block]) -> dict[str, Any]:
    """Blocks as plain values."""
    pieces = [piece for block in group for piece in block.pieces]
    return {
        "blocks": [block.number for block in group],
        "pieces": [len(block.pieces) for block in group],
        "units": [piece.unit for piece in pieces],
        "requests": [piece.request.model_dump(exclude_none=True) for piece in pieces],
        "first": [piece.first for piece in pieces],
        "starts": [piece.start for piece in pieces],
    }


def _written(
    generator: AnyGenerator,
    writing: Writing,
    numbers: Sequence[int],
    n_pieces: Mapping[int, int],
    progress: Callable[[int], None] | None,
) -> Iterator[UnitResult]:
    """Write blocks, told as so many of the generator's requests each."""
    written = samples.write(
        generator,
        range(len(numbers)),
        writing.selection,
        numbers=numbers,
        named=writing.named,
        cifs=writing.cifs,
        progress=progress,
    )
    for number, n in n_pieces.items():
        rows: list[dict[str, Any]] = []
        for result in itertools.islice(written, n):
            rows += map(dict, result.rows)
        if writing.nested:
            for row in rows:
                row["file"] = row["file"] and f"{number:05d}/{row['file']}"
        yield UnitResult(number, rows, {row["file"]: row["cif"] for row in rows if row["file"]})
