"""Ctrl-C is noted even where Python loses its exception."""

from __future__ import annotations

import signal

import pytest

from crystallm.execution import interrupt


class Hidden:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def watched():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt.watch()
    yield
    signal.signal(signal.SIGINT, before)
    interrupt._noted.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_loses_is_raised_at_the_next_check(watched):
    interrupt.check()
    hidden = Hidden()
    del hidden  # its KeyboardInterrupt goes nowhere
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()
    interrupt.check()


def test_an_interrupt_is_raised_at_once(watched):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_handler_of_the_program_is_left_alone(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupt.watch()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
