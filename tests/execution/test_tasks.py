"""Tasks by name, and their limits."""

from __future__ import annotations

import math

import pytest

from crystallm.errors import InputError
from crystallm.execution import tasks
from crystallm.execution.tasks import UNLIMITED, Limits
from misbehaving import behave


def test_a_function_of_a_module_is_found_by_its_name():
    assert tasks.name_of(behave) == "misbehaving:behave"
    assert tasks.resolve_function("misbehaving:behave") is tasks.resolve_function(behave) is behave
    assert tasks.name_of("package.module:name") == "package.module:name"


@pytest.mark.parametrize("function", [lambda task: task, math])
def test_a_function_without_a_name_is_rejected(function):
    with pytest.raises(InputError, match="cannot be imported by a worker"):
        tasks.name_of(function)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": math.nan}, {"memory_gb": -1}])
def test_limits_are_positive(wrong):
    with pytest.raises(InputError, match="must both be positive"):
        Limits(**wrong)
    assert Limits(math.inf, None) == UNLIMITED


def test_a_process_knows_its_index(monkeypatch):
    assert tasks.worker_index() == 0
    monkeypatch.setenv(tasks.INDEX_VARIABLE, "3")
    assert tasks.worker_index() == 3
