"""Options of devices, processes and clusters."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.execution.place import DeviceOptions, ExecutionOptions


def test_defaults():
    assert DeviceOptions().device == "auto"
    assert (ExecutionOptions().workers, ExecutionOptions().cluster) == (None, None)


def test_there_is_at_least_one_worker():
    with pytest.raises(InputError, match="workers"):
        ExecutionOptions.build({"workers": 0})
