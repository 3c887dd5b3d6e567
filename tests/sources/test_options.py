"""Options that name collections."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.sources.options import KnownOptions, ReadOptions, SourceOptions


def test_the_path_of_a_collection_does_not_decide_results():
    assert SourceOptions(path="cifs").deciding() == {}
    assert KnownOptions(known=["a.csv", "b"]).deciding() == {"known": ["a.csv", "b"]}


def test_cifs_are_read_in_two_ways():
    assert ReadOptions().read_as == "auto"
    with pytest.raises(InputError, match="read_as = 'paper'"):
        ReadOptions.build({"read_as": "paper"})
