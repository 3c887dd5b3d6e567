"""Fixtures of data sets: textbook crystals as CIFs, and reports without pictures."""

from __future__ import annotations

import pytest

from prepared import write_long


@pytest.fixture(autouse=True)
def pictures(request):
    """Reports are drawn where their bytes are compared; in all other tests it would take most of the time."""
    if "whole" not in request.fixturenames:
        request.getfixturevalue("undrawn")


@pytest.fixture(scope="module")
def cifs(textbook_structures):
    return {name: structure.to(fmt="cif") for name, structure in textbook_structures.items()}


@pytest.fixture
def long(tmp_path, cifs):
    return write_long(tmp_path, cifs)
