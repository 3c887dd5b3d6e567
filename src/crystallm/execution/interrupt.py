"""Ctrl-C that is not lost: Python forgets a KeyboardInterrupt that comes while an object is destroyed.

`watch` notes the signal before Python raises the exception; loops over hours of work call `check` after each
step. Does not depend on what is interrupted.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_noted = threading.Event()


def watch() -> None:
    """Note Ctrl-C from now on, unless the program has a handler of its own."""
    _noted.clear()
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)


def check() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed since `watch`, and its exception was lost."""
    if _noted.is_set():
        _noted.clear()
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    _noted.set()
    signal.default_int_handler(number, frame)
