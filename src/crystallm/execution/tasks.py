"""Tasks of worker processes: functions by name, limits, and failures."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from crystallm.errors import CrystallmError, InputError
from crystallm.lazy import resolve

Function = Callable[..., Any] | str

INDEX_VARIABLE = "CRYSTALLM_PROCESS"
"""Environment variable with the index of a worker process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one task in a worker process.

    Attributes:
        seconds: time; starting the process and importing the function do not count.
        memory_gb: address space of the process, GiB, where the system has such a limit (Linux); None for no
            limit. A GPU driver maps more addresses than any machine has memory.
    """

    seconds: float = 60.0
    memory_gb: float | None = 4.0

    def __post_init__(self) -> None:
        if not self.seconds > 0 or not (self.memory_gb is None or self.memory_gb > 0):
            raise InputError(f"seconds={self.seconds} and memory_gb={self.memory_gb} must both be positive")


DEFAULT_LIMITS = Limits()
UNLIMITED = Limits(math.inf, None)


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands for the value of a task that failed.

    Attributes:
        reason: the limit that was exceeded, or the error that was raised, in a few words.
        lost: whether its process died, which need not be due to the task.
    """

    reason: str
    lost: bool = field(default=False, compare=False)


class TaskError(CrystallmError):
    """A task failed: its process crashed or exceeded a limit, or the function raised.

    Args:
        reason: in a few words.
        lost: whether its process died, which need not be due to the task.
    """

    def __init__(self, reason: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lost = lost


class WorkerStartError(CrystallmError):
    """A process cannot import the function of its tasks, so that every task would fail."""


def name_of(function: Function) -> str:
    """Return the name by which another process can import a function, `package.module:name`.

    Raises:
        InputError: it has none: a lambda, a nested function, a function of a script.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<object>")
    if not module or module == "__main__" or "<" in name:
        raise InputError(f"{name!r} of {module!r} cannot be imported by a worker: put it into a module")
    return f"{module}:{name}"


def resolve_function(function: Function) -> Callable[..., Any]:
    """Return the function of this name, or the function itself."""
    return resolve(function) if isinstance(function, str) else function


def worker_index() -> int:
    """Return the index of this process in its pool; 0 outside of a pool."""
    return int(os.environ.get(INDEX_VARIABLE, "0"))
