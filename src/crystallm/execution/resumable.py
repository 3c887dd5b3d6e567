"""Do the units of a run that its folder lacks, and store each as soon as it is done.

A unit is what is stored, resumed and repeated as a whole: a block of requests, a crystal, some rows. The
caller gives all units of the run in their order, and a function that does some of them, here or on an
executor.

    def work(units: Iterator[tuple[int, Block]], advance: Callable[[int], None]) -> Iterator[UnitResult]:
        for number, block in units:
            yield UnitResult(number, rows_of(block))

    folder = RunFolder(path, RunFolder.configuration("evaluate", options, digest=digest), COLUMNS)
    run_units(blocks, work, folder, task="checking crystals", size=len, progress=progress)
    folder.finish()
    rows = folder.rows()
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from crystallm.errors import CrystallmError
from crystallm.execution import interrupt
from crystallm.execution.progress import Progress, no_progress
from crystallm.storage.run_folder import RunFolder

Content = TypeVar("Content")


class UnitResult(NamedTuple):
    """What a unit gave.

    Attributes:
        cifs: file name below the folder of CIFs -> text.
    """

    unit: int
    rows: Sequence[Mapping[str, Any]]
    cifs: Mapping[str, str] = {}


def run_units(
    units: Iterable[Content],
    work: Callable[[Iterator[tuple[int, Content]], Callable[[int], None]], Generator[UnitResult]],
    folder: RunFolder,
    *,
    task: str,
    total: int | None = None,
    size: Callable[[Content], int] = lambda _: 1,
    digest: Callable[[Content], str] | None = None,
    progress: Progress = no_progress,
) -> None:
    """Do the units that a run folder lacks, and store each as soon as it is done.

    A finished folder needs no unit: none is drawn. Where all units are done already, `work` is not called.

    Args:
        units: contents of all units of the run, in their order; drawn as they are needed.
        work: from an iterator over (number, content) of units, and a function that may be called with how
            much of them is done, to the results in any order. Closed at once where a result cannot be stored.
        total: size of all units together; None where it is not known.
        size: of the content of a unit, in what the progress counts.
        digest: of the content of a unit; a unit that was done with another content is an error.

    Raises:
        InputError: the folder holds another run, or a unit of another content.
        CrystallmError: the folder cannot be written, another process writes it, or a unit was not done.
    """
    folder.check()
    if folder.finished:
        return
    missing = _Missing(units, folder, size, digest)
    todo = iter(missing)
    first = next(todo, None)
    if first is None:
        return
    with folder.held(), progress(task, total, missing.skipped) as advance:
        missing.report_to(advance)
        with contextlib.closing(work(itertools.chain([first], todo), missing.report)) as results:
            for result in results:
                digest_of_unit = missing.digests.pop(result.unit, None)
                folder.write_unit(result.unit, result.rows, result.cifs, digest_of_unit)
                missing.count(result.unit)
                interrupt.check()
    deque(todo, maxlen=0)  # what `work` has left is not done
    if missing.open:
        raise CrystallmError(
            f"{len(missing.open)} of {missing.n_units} units of the run are not done: run it again"
        )


@dataclass
class _Missing(Generic[Content]):
    """The units that are still to be done, as they are drawn, and how much of them is done."""

    units: Iterable[Content]
    folder: RunFolder
    size: Callable[[Content], int]
    digest: Callable[[Content], str] | None
    n_units: int = 0
    skipped: int = 0  # size of the units that earlier runs have done
    open: dict[int, int] = field(default_factory=dict)  # sizes of the units under way, by number
    digests: dict[int, str] = field(default_factory=dict)  # the same for their digests
    _advance: Callable[[int], None] | None = None
    _before: int = 0  # skipped before the first report
    _stored: int = 0
    _reported: int = 0

    def __iter__(self) -> Iterator[tuple[int, Content]]:
        for number, content in enumerate(self.units):
            self.n_units = number + 1
            digest = None if self.digest is None else self.digest(content)
            if self.folder.has(number, digest):
                self.skipped += self.size(content)
                continue
            self.open[number] = self.size(content)
            if digest is not None:
                self.digests[number] = digest
            yield number, content

    def report_to(self, advance: Callable[[int], None]) -> None:
        """Report from now on how much this run has done."""
        self._advance, self._before = advance, self.skipped

    def count(self, number: int) -> None:
        """Count a unit that was stored."""
        self._stored += self.open.pop(number)
        self.report(self._stored)

    def report(self, done: int) -> None:
        """Report how much of the units of this run is done; a smaller number than before has no effect."""
        self._reported = max(self._reported, done)
        if self._advance is not None:
            self._advance(self.skipped - self._before + self._reported)
