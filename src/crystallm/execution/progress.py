"""Progress of a run, as pipelines report it. Does not depend on how it is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Shows how far a phase of a run is."""

    def __call__(
        self, what: str, total: int | None, done: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Open a phase.

        Args:
            what: the phase, such as `generating crystals`.
            total: its number of items; None if unknown.
            done: items that an earlier run has done.

        Returns:
            A context that gives a function of the number of items done by this run so far.
        """


@contextlib.contextmanager
def no_progress(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    """Show nothing."""
    yield lambda _: None
