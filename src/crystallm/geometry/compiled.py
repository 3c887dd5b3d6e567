"""Loops over numbers that are compiled once they have taken some time.

The same code runs as Python at first and is compiled by numba, where it is installed, when that pays off: a
single crystal needs few loops, and loading numba takes longer than all of them.
"""

from __future__ import annotations

import sys
import time
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 0.2
"""Seconds that a loop takes as Python before it is compiled; numba is loaded in 0.6."""


class Compiled:
    """A function of numbers and arrays. It may write to arrays, and returns a number.

    Entries of arrays are read and written one by one, as `array[i][j]`: as Python they are lists.

    Args:
        function: the loop.
        helpers: functions that it calls, which call none themselves; they may return tuples.
    """

    def __init__(self, function: Callable[..., Any], *helpers: Callable[..., Any]) -> None:
        self._function, self._helpers = function, helpers
        self._seconds = 0.0
        self._kernel: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        if self._kernel is None:
            if self._seconds < PATIENCE and "numba" not in sys.modules:
                start = time.process_time()
                result = self.as_python(*args)
                self._seconds += time.process_time() - start
                return result
            self._kernel = self.as_compiled() or self.as_python
        return self._kernel(*args)

    def as_python(self, *args: Any) -> Any:
        """Call the function without numba."""
        given = [each.tolist() if isinstance(each, np.ndarray) else each for each in args]
        result = self._function(*given)
        for array, values in zip(args, given, strict=True):
            if isinstance(array, np.ndarray) and array.size and array.flags.writeable:
                array[...] = values
        return result

    def as_compiled(self) -> Callable[..., Any] | None:
        """Return the compiled function; None where numba is not installed."""
        try:
            from numba import njit
        except ImportError:  # numba does not support every Python and machine
            return None
        inner = {helper.__name__: njit(error_model="numpy")(helper) for helper in self._helpers}
        names = self._function.__globals__ | inner
        function = FunctionType(self._function.__code__, names, self._function.__name__)
        function.__qualname__ = self._function.__qualname__
        try:
            compiled: Callable[..., Any] = njit(cache=True, error_model="numpy")(function)
        except RuntimeError:  # no writable cache folder: each process compiles again, in seconds
            compiled = njit(error_model="numpy")(function)
        return compiled
