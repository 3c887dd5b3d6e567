"""What a long run reports while it works: progress and warnings. Silent unless a caller overrides it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class Reporter:
    """Receives the progress and warnings of a run, and shows none of them."""

    def progress(self, task: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Return a context whose function takes how much of a task is done.

        Args:
            task: what is done, such as `relaxing crystals`.
            total: of what is counted; None where it is not known.
        """
        del task, total
        return contextlib.nullcontext(lambda _: None)

    def warn(self, message: str) -> None:
        """Take a warning of one line."""
