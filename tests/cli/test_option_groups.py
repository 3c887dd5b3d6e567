"""Option groups as flags of a command, with values from YAML files."""

from __future__ import annotations

from typing import Annotated

import pytest
from cyclopts import App, UnknownOptionError
from pydantic import Field

from crystallm.cli.option_groups import (
    ConfigOptions,
    Flat,
    OutputOptions,
    read_config_file,
    set_flags,
    with_argument,
)
from crystallm.errors import InputError
from crystallm.options import Flag, Options


class Group(Options):
    """Some options."""

    n: Annotated[int, Flag(("-n",))] = Field(default=3, ge=1)
    """Number."""
    top_k: int | None = Field(default=10, ge=1)
    """Most likely tokens."""
    known: Annotated[tuple[str, ...], Flag(several=True)] = ()
    """Files."""
    group: Annotated[bool, Flag(negative=True)] = True
    """Whether."""
    fixed: Annotated[float, Flag(parsed=False)] = 2.0
    """No option of this command."""


DEFAULTS, CONFIG = Group(), ConfigOptions()


def run(*words: str) -> Group:
    given: list[Group] = []

    def command(group: Flat[Group] = DEFAULTS, config: Flat[ConfigOptions] = CONFIG) -> None:
        given.append(group)

    command.__annotations__ = {"group": Flat[Group], "config": Flat[ConfigOptions], "return": None}
    set_flags(command)
    app = App(config=(read_config_file,))
    app.default(command)
    app(list(words), exit_on_error=False, print_error=False, result_action="return_value")
    return given[0]


def test_fields_are_flags_with_short_negative_and_several_forms():
    assert run() == Group()
    assert run("-n", "5", "--top-k", "none", "--no-group", "--known", "a", "b") == Group(
        n=5, top_k=None, group=False, known=("a", "b")
    )


def test_a_field_that_is_not_parsed_keeps_its_default(tmp_path):
    with pytest.raises(UnknownOptionError):
        run("--fixed", "3")
    path = tmp_path / "options.yaml"
    path.write_text("fixed: 3\n")
    with pytest.raises(InputError, match="unknown option 'fixed'"):
        run("--config", str(path))


def test_a_file_gives_what_the_command_line_does_not(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("n: 7\ntop-k:\nknown: [c]\n")
    assert run("--config", str(path), "-n", "2") == Group(n=2, top_k=None, known=("c",))
    path.write_text("m: 7\n")
    with pytest.raises(InputError, match=r"options.yaml: unknown option 'm': "):
        run("--config", str(path))


def test_a_positional_argument_is_the_option_of_the_same_name():
    assert with_argument(Group(top_k=4), "n", 9) == Group(n=9, top_k=4)
    assert with_argument(Group(n=2), "n", None) == Group(n=2)
    with pytest.raises(InputError, match="n = '0'"):
        with_argument(Group(), "n", 0)


@pytest.mark.parametrize(
    ("quiet", "as_json", "shown"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_progress_is_shown_unless_quiet_or_json(quiet, as_json, shown):
    assert OutputOptions(quiet=quiet, as_json=as_json).progress is shown
