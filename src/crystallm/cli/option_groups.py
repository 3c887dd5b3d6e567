"""Option groups on the command line: pydantic models as flags, with values from YAML files.

A command takes `group: Flat[Group] = Group.defaults()`. Each field of the group is a flag, and the docstring
of the field is its help.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_type_hints

from cyclopts import Parameter
from cyclopts.config import Dict
from pydantic import ValidationError

from crystallm.errors import InputError
from crystallm.options import Flag, Options, error_line, hint, read_mapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from cyclopts import App, ArgumentCollection, CycloptsError


def _show_default(value: object) -> str | None:
    """Return the default that the help shows; None for flags that are off and for options without one."""
    return None if value is None or value is False or value == () else str(value)


_Group = TypeVar("_Group", bound=Options)
Flat = Annotated[_Group, Parameter(name="*", negative_bool=(), show_default=_show_default)]
"""An option group whose fields are flags of the command."""


Positional = str | None
"""A positional argument: the value of the option of the same name in a group of the command."""


class ConfigOptions(Options):
    """The file that holds the options of a command."""

    config: Path | None = None
    """YAML file with options of this command; the command line wins."""


class QuietOptions(ConfigOptions):
    """Whether a command prints, and the file that holds its options."""

    quiet: bool = False
    """Print nothing but errors."""


class JsonOptions(Options):
    """The form of what a command prints."""

    as_json: Annotated[bool, Flag(name="--json")] = False
    """Print JSON, one object a line, instead of a table."""


class OutputOptions(JsonOptions, QuietOptions):
    """What a command prints, and the file that holds its options."""

    @property
    def progress(self) -> bool:
        """Whether to show progress."""
        return not (self.quiet or self.as_json)


def set_flags(command: Callable[..., None]) -> None:
    """Give the fields of a command's option groups the flag names that their `Flag` metadata adds."""
    for group in get_type_hints(command).values():
        if inspect.isclass(group) and issubclass(group, Options):
            _set_flags(group)


def _set_flags(group: type[Options]) -> None:
    # cyclopts looks at `func` first; else it parses the source of each base class for help that the fields
    # have already, which takes longer than all else.
    type.__setattr__(group, "func", len)
    for name, field in group.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Options):
            _set_flags(field.annotation)
        if field.description is not None:
            field.description = " ".join(field.description.split())
        for i, flag in enumerate(field.metadata):
            if isinstance(flag, Flag):
                field.metadata[i] = Parameter(
                    name=(flag.name or f"--{name.replace('_', '-')}", *flag.more),
                    negative_bool=("no-",) if flag.negative else (),
                    negative_iterable=(),
                    consume_multiple=flag.several,
                    parse=flag.parsed,
                )


def read_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take options that are not on the command line from the YAML file of `--config`.

    Raises:
        InputError: an unknown option, or not a mapping.
        CrystallmError: the file cannot be read.
    """
    path = next((a.tokens[0].value for a in arguments if a.keys == ("config",) and a.tokens), None)
    if path is None:
        return
    content = read_mapping(Path(path), "temperature: 0.8") or {}
    names = sorted(
        name.strip("-").replace("-", "_") for a in arguments if a.parse and not a.children for name in a.names
    )
    values = {name.replace("-", "_"): "none" if value is None else value for name, value in content.items()}
    for name in values:
        if name not in names or name == "config":
            raise InputError(f"{path}: unknown option {name!r}: {hint(name, names)}")
    Dict(values, source=path, use_commands_as_keys=False)(app, commands, arguments)


def with_argument(group: _Group, name: str, value: object) -> _Group:
    """Return a group with the value of a positional argument, if there is one."""
    return group if value is None else group.build(group.model_dump(exclude_unset=True) | {name: value})


def validation_message(error: CycloptsError) -> str | None:
    """Return the one-line message of an error that an option group raised; None for other errors."""
    cause = error.__cause__
    return error_line(cause) if isinstance(cause, ValidationError) else None
