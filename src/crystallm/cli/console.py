"""Tables, progress bars and JSON lines on the terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from crystallm.execution.progress import Progress


@contextlib.contextmanager
def progress(what: str, total: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, if that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def print_json(rows: Iterable[dict[str, Any]]) -> None:
    """Print rows as JSON, one a line."""
    import json

    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: `1 crystal`, `1,200 crystals`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def progress_bars(*, shown: bool) -> Progress:
    """Return what shows the phases of a run on standard error: with a rate, where the total is known."""

    def phase(what: str, total: int | None, done: int = 0) -> AbstractContextManager[Callable[[int], None]]:
        if total is None:
            return progress(what, None, shown=shown)
        return paced(what, total, done, shown=shown)

    return phase


WINDOW = 60.0
"""Seconds over which the rate is averaged, at least."""
STEPS = 8
"""Steps over which the rate is averaged, at least: a block may take minutes."""
EVERY = 60.0
"""Seconds between two lines if standard error is not a terminal."""


class Pace:
    """Recent rate of a run.

    Args:
        done: number of items done before.
        now: time in seconds, from any zero.
    """

    def __init__(self, done: int, now: float) -> None:
        self._marks = deque([(now, done)])

    def mark(self, done: int, now: float) -> None:
        """Record the number of items done."""
        self._marks.append((now, done))
        while len(self._marks) > STEPS + 1 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Recent rate, items per second; 0 at the start."""
        (start, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / (end - start) if end > start else 0.0

    def describe(self, total: int) -> str:
        """Return rate and time left, as `12.3 crystals/s, 1:02:03 left`."""
        if self.rate <= 0:
            return ""
        seconds = max(0, round((total - self._marks[-1][1]) / self.rate))
        left = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{self.rate:,.{0 if self.rate >= 100 else 1}f} crystals/s, {left} left"


@contextlib.contextmanager
def paced(what: str, total: int, done: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show the progress of a run with its rate on standard error.

    Args:
        what: label, such as `generating crystals`.
        total: number of items, including those done before.
        done: number of items done before.
        shown: whether to show anything.

    Returns:
        A context whose function takes the number of items done by this run.
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
            bar.update(task, completed=done + now_done, pace=pace.describe(total))

        yield advance


def _lines(what: str, total: int, done: int, pace: Pace) -> Callable[[int], None]:
    """Return a function that writes a line now and then, for logs."""
    last = time.monotonic()

    def advance(now_done: int) -> None:
        nonlocal last
        now = time.monotonic()
        pace.mark(done + now_done, now)
        if now - last >= EVERY:
            last = now
            sys.stderr.write(f"{what}: {done + now_done:,} of {total:,}, {pace.describe(total)}\n")
            sys.stderr.flush()

    return advance


_MIN_COLUMNS = 2
_EDGES = 2  # of a table, which rich does not measure
_ANY_WIDTH = 10_000
_MIN_WIDTH = 120
"""Width of the output if it is not a terminal: 80 columns cut table cells."""


class FittingTable(Table):
    """A table that leaves out whole columns of a narrow page, so that no value is cut.

    Args:
        title: above it.
        least: heads of columns that go first; then those go that stand last.
        padding: of cells, to the left and to the right.
    """

    def __init__(self, title: str | None = None, *, least: Sequence[str] = (), padding: int = 1) -> None:
        super().__init__(
            title=None if title is None else plain(title),
            title_justify="left",
            header_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, padding),
        )
        self._least = least
        self.left_out: list[str] = []

    def add_column(self, *args: Any, **options: Any) -> None:
        """Add a column; a text that is too long goes on in the next line."""
        super().add_column(*args, **{"overflow": "fold", **options})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table."""
        wide = options.update(max_width=_ANY_WIDTH)
        for column in self.columns:
            if column.no_wrap:
                cells = (column.header, *column.cells)
                column.min_width = max(Measurement.get(console, wide, cell).maximum for cell in cells)
        while len(self.columns) > _MIN_COLUMNS:
            if Measurement.get(console, wide, self).minimum + _EDGES <= options.max_width:
                break
            self._leave_out()
        yield from super().__rich_console__(console, options)
        if self.left_out:
            yield Text(f"(too narrow for: {', '.join(self.left_out)})")

    def _leave_out(self) -> None:
        heads = [str(column.header).partition("\n")[0] for column in self.columns]
        place = next((heads.index(head) for head in self._least if head in heads), len(heads) - 1)
        self.left_out.append(heads[place])
        del self.columns[place]
        for number, column in enumerate(self.columns):
            column._index = number  # noqa: SLF001 - which rich gave it when it was added


def new_table(title: str | None = None) -> Table:
    """Return an empty table in the common style, with its title on the left."""
    return FittingTable(title)


def print_table(
    heads: Sequence[str],
    lines: Iterable[Sequence[str]],
    title: str | None = None,
    *,
    left: Sequence[int] = (0,),
) -> None:
    """Print a table of cells; columns are set to the right, but those of the indices `left`."""
    table = new_table(title)
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i in left else "right")
    for line in lines:
        table.add_row(*map(plain, line))
    page().print(table)


def plain(text: str) -> str:
    """Return text in which square brackets are not markup of rich."""
    return text.replace("[", "\\[")


def page() -> Console:
    """Return standard output, wide enough for tables if it is not a terminal."""

    class PageConsole(Console):
        """A console that raises BrokenPipeError, which the command line handles."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = PageConsole()
    return console if console.is_terminal else PageConsole(width=max(console.width, _MIN_WIDTH))
