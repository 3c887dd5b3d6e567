"""Errors for users, each one line that quotes the value and gives the remedy; warnings of libraries.

`exit_code` is what the command line returns for an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def install(extra: str) -> str:
    """Return the command that installs an extra of this package: the remedy for a missing package."""
    return f"pip install 'crystallm[{extra}]'"


class CrystallmError(Exception):
    """A valid request that could not be met (exit code 1)."""

    exit_code = 1


class InputError(CrystallmError, ValueError):
    """An invalid request: a malformed formula, an unknown space group (exit code 2)."""

    exit_code = 2


class TextError(CrystallmError, ValueError):
    """A text that does not describe a crystal.

    Args:
        message: what is wrong, with the offending value.
        line: number of the offending line or token, from 1, where there is one.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line


class CheckpointError(CrystallmError):
    """Weights that are missing, truncated, or not of a supported model."""


def describe(error: BaseException) -> str:
    """Return type and text of an error, for a short message."""
    return f"{type(error).__name__}: {str(error)[:200]}"


def one_line(value: object, limit: int = 200) -> str:
    """Return a text or an error as one printable line; the type of an error without text."""
    text = " ".join(str(value)[: 2 * limit].split())[:limit]
    if not text and isinstance(value, BaseException):
        return type(value).__name__
    return "".join(char if char.isprintable() else "?" for char in text)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings, such as pymatgen's and spglib's for nearly every implausible crystal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
