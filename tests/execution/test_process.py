"""One worker process: functions, values, failures and its end."""

from __future__ import annotations

import pytest

from crystallm.execution.process import Process
from crystallm.execution.tasks import TaskError, WorkerStartError


@pytest.fixture
def process():
    started = Process(memory_gb=None, index=2)
    yield started
    started.stop()


def test_a_process_keeps_its_functions_after_an_exception_and_ends_after_a_crash(process):
    process.load("misbehaving:behave")
    pid = process.run(1, 60)[1]
    with pytest.raises(TaskError, match="ValueError: no such thing"):
        process.run("raise", 60)
    process.load("misbehaving:wait_for")
    assert process.run(0, 60) == 0
    process.load("crystallm.execution.tasks:name_of")
    assert process.run("a:b", 60) == "a:b"
    process.load("misbehaving:behave")
    assert process.run(2, 60) == [2, pid]
    assert not process.dead
    with pytest.raises(TaskError, match="died with code 7"):
        process.run("die", 60)
    assert process.dead


def test_a_process_without_its_function_does_not_start(process):
    with pytest.raises(WorkerStartError, match="no_such_module:f did not start: ModuleNotFoundError"):
        process.load("no_such_module:f")
    assert process.dead
