"""Option groups: validation, messages, YAML."""

import math
from itertools import pairwise
from typing import Annotated, Literal

import pytest
from pydantic import Field

from crystallm.errors import CrystallmError, InputError
from crystallm.options import CommonOptions, Flag, Options, hint, import_object, read_mapping, same


class Inner(Options):
    """A nested group."""

    width: int = Field(default=10, ge=1)
    """Width."""


class Group(Options):
    """A group."""

    z: Annotated[int | Literal["auto"] | None, Flag(("-z",))] = None
    """Formula units."""
    rules: Literal["full", "none"] = "full"
    """Rules."""
    inner: Inner = Inner()
    """Nested."""


def test_fields_are_described_by_their_docstrings():
    assert (
        CommonOptions.model_fields["symprec"].description == "Distance tolerance of the symmetry search, Å."
    )
    assert same(CommonOptions, "seed").description == "Seed of the random numbers."


def test_none_stands_for_no_value_where_that_is_allowed():
    assert Group.build({"z": "none"}).z is None
    assert Group.build({"rules": "none"}).rules == "none"
    assert Group.build({"z": "3"}).z == 3
    assert Group.build({"z": "auto"}).z == "auto"
    assert Group.defaults() == Group()
    assert Group.defaults().model_fields_set == set()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"z": "2.5"}, "z = '2.5': write a whole number"),
        ({"zz": 1}, "unknown option 'zz': did you mean z?"),
        ({"rules": "ful"}, "rules = 'ful': input should be 'full' or 'none'"),
        ({"rules": "fu\0l"}, "rules = 'fu\\x00l': it holds a NUL character, which no name may have"),
        ({"inner": {"width": 0}}, "width = '0': input should be greater than or equal to 1"),
    ],
)
def test_the_first_error_is_one_line_with_name_and_value(values, message):
    with pytest.raises(InputError) as caught:
        Group.build(values)
    assert str(caught.value) == message


def test_groups_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Group().z = 3


def test_yaml_must_be_a_mapping(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("z: 3\n1: x\n")
    assert read_mapping(path, "z: 2") == {"z": 3, "1": "x"}
    path.write_text("")
    assert read_mapping(path, "z: 2") is None
    path.write_text("- z\n")
    with pytest.raises(InputError, match="must hold names and values, such as 'z: 2'"):
        read_mapping(path, "z: 2")
    with pytest.raises(CrystallmError, match="cannot be read"):
        read_mapping(tmp_path / "missing.yaml", "z: 2")


@pytest.mark.parametrize("text", ["on: 2020-13-45", f"a: {'9' * 10_000}", "[" * 100_000])
def test_yaml_that_cannot_be_read_is_one_line(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="is no YAML that can be read") as caught:
        read_mapping(path, "a: 1")
    assert len(str(caught.value)) < 500


def test_a_misspelt_name_gets_a_suggestion():
    assert hint("tempratur", ["temperature", "top_k"]) == "did you mean temperature?"
    assert hint("gen", ["search", "generate"]) == "did you mean generate?"
    assert hint("x", ["temperature", "top_k"]) == "there are temperature, top_k"


@pytest.mark.parametrize(
    "text",
    [
        "z: &a [*a]",
        "a: &a {b: *a}",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 10)}]" for m, n in pairwise("abcdefgh")),
    ],
    ids=["list in itself", "mapping in itself", "ten million values"],
)
def test_yaml_of_aliases_without_end_is_one_line(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="holds more than 100,000 values, or itself"):
        read_mapping(path, "z: 2")
    path.write_text("a: &a [x, x]\nb: *a\n")
    assert read_mapping(path, "z: 2") == {"a": ["x", "x"], "b": ["x", "x"]}


def test_an_object_is_named_by_module_and_path():
    assert import_object("math:sqrt", "predictor") is math.sqrt
    assert import_object("pathlib:Path.cwd", "predictor").__name__ == "cwd"
    with pytest.raises(InputError, match="predictor = 'math:no_such': .*; is its folder on PYTHONPATH"):
        import_object("math:no_such", "predictor")
    with pytest.raises(InputError, match="predictor = ':x'"):
        import_object(":x", "predictor")
