"""Errors as one line, and quiet libraries."""

from __future__ import annotations

import warnings

import pytest

from crystallm.errors import InputError, TextError, describe, install, one_line, quiet_libraries


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (ValueError("a\n  b\tc"), "a b c"),
        (ValueError(), "ValueError"),
        ("bell\a", "bell?"),
        ("", ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_value_is_one_printable_line(value, line):
    assert one_line(value) == line


def test_a_line_is_bounded():
    assert one_line(KeyError("long name"), 5) == "'long"


def test_an_error_is_described_by_its_type():
    assert describe(KeyError("x")) == "KeyError: 'x'"


def test_an_error_of_a_text_names_its_line():
    assert str(TextError("no atom", 3)) == "line 3: no atom"
    assert (TextError("no atom").line, InputError("x").exit_code) == (None, 2)


def test_libraries_are_quiet_within_a_block_only():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with quiet_libraries():
            warnings.warn("of a radius", UserWarning, stacklevel=1)
        assert shown == []
        warnings.warn("of an option", UserWarning, stacklevel=1)
        assert len(shown) == 1


def test_the_remedy_for_a_missing_package_is_a_command():
    assert install("ase") == "pip install 'crystallm[ase]'"
