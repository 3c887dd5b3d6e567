from __future__ import annotations

from typing import get_args

from crystallm.export.options import Format
from crystallm.export.writers import FORMATS


def test_every_format_has_a_writer():
    assert set(get_args(Format)) == set(FORMATS)
