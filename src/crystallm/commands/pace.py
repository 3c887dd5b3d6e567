"""How fast crystals are written now, and how long it takes still: live, or a line a minute in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW = 60.0
"""Seconds over which the pace is taken, at least."""
STEPS = 8
"""Steps over which it is taken, at least: a block may take minutes."""
EVERY = 60.0
"""Seconds between two lines where there is no terminal."""


class Pace:
    """Takes note of how much is done, and when.

    Args:
        done: what is done already.
        now: the time in seconds, from any zero.
    """

    def __init__(self, done: int, now: float) -> None:
        self._marks = deque([(now, done)])

    def mark(self, done: int, now: float) -> None:
        """Note that so much is done."""
        self._marks.append((now, done))
        while len(self._marks) > STEPS + 1 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """What is done a second, lately; 0 at the beginning."""
        (start, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / (end - start) if end > start else 0.0

    def told(self, total: int) -> str:
        """Rate and time left, as `12.3 crystals/s, 1:02:03 left`."""
        if self.rate <= 0:
            return ""
        seconds = max(0, round((total - self._marks[-1][1]) / self.rate))
        left = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{self.rate:,.{0 if self.rate >= 100 else 1}f} crystals/s, {left} left"


@contextlib.contextmanager
def paced(what: str, total: int, done: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Tell on standard error how far a run is.

    Args:
        what: is counted, such as `writing crystals`.
        total: of all that is to be done, by this run and before.
        done: before.
        shown: whether anything is told.

    Returns:
        A context whose function takes how much has been done by this run.
    """
    pace = Pace(done, time.monotonic())
    if not shown:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        yield _lines(what, total, done, pace)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done, pace="")

        def advance(now_done: int) -> None:
            pace.mark(done + now_done, time.monotonic())
            bar.update(task, completed=done + now_done, pace=pace.told(total))

        yield advance


def _lines(what: str, total: int, done: int, pace: Pace) -> Callable[[int], None]:
    """Writes a line now and then: a log of a night need not be longer."""
    last = time.monotonic()

    def advance(now_done: int) -> None:
        nonlocal last
        now = time.monotonic()
        pace.mark(done + now_done, now)
        if now - last >= EVERY:
            last = now
            sys.stderr.write(f"{what}: {done + now_done:,} of {total:,}, {pace.told(total)}\n")
            sys.stderr.flush()

    return advance
