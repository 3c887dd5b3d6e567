"""The errors that a person may see: one line, which quotes the value and says the mend.

Knows nothing of crystals. `exit_code` is what the command line returns for each.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def install(extra: str) -> str:
    """The command that gets what an extra of this package needs: the mend where something is missing."""
    return f"pip install 'crystallm[{extra}]'"


class CrystallmError(Exception):
    """Something was asked rightly but could not be done (exit code 1)."""

    exit_code = 1


class InputError(CrystallmError, ValueError):
    """Something was asked wrongly: a formula that is none, an unknown space group (exit code 2)."""

    exit_code = 2


class TextError(CrystallmError, ValueError):
    """A text that is not a crystal.

    Args:
        message: what is wrong, with the offending value.
        line: number of the offending line or token, from 1, where there is one.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line


class CheckpointError(CrystallmError):
    """Weights that are missing, truncated, or not a model of this kind."""


def describe(error: BaseException) -> str:
    """An error in one short line."""
    return f"{type(error).__name__}: {str(error)[:200]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that pymatgen and spglib have for nearly every odd crystal; verdicts say it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
