"""Options of devices, processes and clusters."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.execution.place import DeviceOptions, ExecutionOptions, open_cluster, open_place


def test_defaults():
    assert DeviceOptions().device == "auto"
    assert (ExecutionOptions().workers, ExecutionOptions().cluster) == (None, None)


def test_there_is_at_least_one_worker():
    with pytest.raises(InputError, match="workers"):
        ExecutionOptions.build({"workers": 0})


def test_a_place_without_a_cluster_is_this_machine():
    with open_cluster(None) as executor:
        assert executor is None
    with open_place(None, 2) as executor:
        assert executor.workers == 2
    with pytest.raises(InputError, match="cluster = 'somewhere'"), open_place("somewhere", 2):
        pass
