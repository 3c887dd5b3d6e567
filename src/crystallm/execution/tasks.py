"""Tasks as functions by name, and what became of lost ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[..., Any] | str


NUMBER = "CRYSTALLM_PROCESS"
"""Name in the environment under which a process finds its number."""


class TaskError(CrystallmError):
    """A task has no value: it crashed, passed a limit, or raised.

    Args:
        reason: why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WorkerStartError(CrystallmError):
    """A process could not even import what its tasks need: no other task will fare better."""


def name_of(function: Callable[..., Any] | str) -> str:
    """The name by which another process can import a function, `package.module:name`.

    Raises:
        InputError: there is none: a lambda, a function inside another one, one of a script.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<object>")
    if not module or module == "__main__" or "<" in name:
        raise InputError(f"{name!r} of {module!r} cannot be imported by a worker: put it into a module")
    return f"{module}:{name}"


def resolve(name: str) -> Callable[[Any], Any]:
    """The function of a name that `name_of` gave."""
    module, _, attribute = name.partition(":")
    function: Callable[[Any], Any] = attrgetter(attribute)(import_module(module))
    return function


def number() -> int:
    """Number of this process among those of its pool; 0 where it has none."""
    return int(os.environ.get(NUMBER, "0"))


@dataclass(frozen=True, slots=True)
class Failure:
    """What stands in the place of a result that could not be had.

    Attributes:
        reason: why, in a few words: the limit that was passed, or the error that was raised.
    """

    reason: str


def resolve_function(function: Function) -> Callable[..., Any]:
    """Return the function of this name, or the function itself."""
    return resolve(function) if isinstance(function, str) else function
