"""Options and limits of a server."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.web.options import ServeOptions, ServerLimits


def test_no_address_can_take_all_slots_and_it_has_more_streams_than_jobs():
    limits = ServerLimits()
    assert 4 * limits.max_jobs_per_address <= limits.max_running + limits.max_waiting
    assert 4 * limits.max_streams_per_address <= limits.max_streams
    assert limits.max_streams_per_address >= 4 * limits.max_jobs_per_address


@pytest.mark.parametrize("name", ServerLimits.model_fields)
def test_no_limit_is_negative(name):
    with pytest.raises(InputError, match=name):
        ServerLimits.build({name: -1})


def test_none_stands_for_no_energy_models():
    assert ServeOptions().energy_models == "installed"
    assert ServeOptions(energy_models="none").energy_models is None
