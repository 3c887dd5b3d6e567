"""Base class of all options, and options in YAML files. Does not depend on what the options are for.

An option group is a frozen pydantic model whose attribute docstrings are its help. Command line, YAML files,
Python and HTTP use the same class, so that a name, default, bound and help text stand in one place.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from crystallm.errors import CrystallmError, InputError, describe, one_line
from crystallm.lazy import resolve

MAX_VALUES = 100_000
"""Values in a YAML file of options, at most."""


@dataclass(frozen=True)
class Flag:
    """Names of an option on the command line that its field name does not give: `Annotated[int, Flag("-n")]`.

    Attributes:
        more: further names, such as `-n` or `--samples`.
        negative: whether there is a `--no-...` too.
        name: in place of the field's own.
        several: whether it takes all values that follow, as a field that is a tuple.
        parsed: whether it is an option of the command at all; else it keeps its default.
    """

    more: tuple[str, ...] = ()
    negative: bool = False
    name: str | None = None
    several: bool = False
    parsed: bool = True


@dataclass(frozen=True, slots=True)
class NotDeciding:
    """Marks a field that does not decide the results of a run: `device: Annotated[str, NOT_DECIDING]`."""


NOT_DECIDING = NotDeciding()


class Options(BaseModel):
    """Base class of option groups: frozen, unknown names rejected; "none" stands for an allowed None."""

    # Validators are built when first used: `--help` needs none.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Describe the fields by their docstrings."""
        super().__pydantic_init_subclass__(**kwargs)
        source = getattr(sys.modules.get(cls.__module__), "__file__", None)
        for name, text in _docstrings(source).get(cls.__name__, {}).items() if source else ():
            if name in cls.model_fields and cls.model_fields[name].description is None:
                cls.model_fields[name].description = text

    @field_validator("*", mode="before")
    @classmethod
    def _none(cls, value: object, info: ValidationInfo) -> object:
        name = info.field_name
        optional = name is not None and type(None) in get_args(cls.model_fields[name].annotation)
        if isinstance(value, str | PurePath) and "\0" in str(value):
            raise ValueError("it holds a NUL character, which no name may have")
        return None if optional and isinstance(value, str) and value == "none" else value

    @classmethod
    def defaults(cls) -> Self:
        """Return the group with its default values, without building its validator: for quick `--help`."""
        return cls.model_construct()

    def deciding(self) -> dict[str, Any]:
        """Return, as JSON values, the options that decide the results of a run."""
        aside = {name for name, field in type(self).model_fields.items() if NOT_DECIDING in field.metadata}
        return self.model_dump(mode="json", exclude=aside)

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Build the group from names and values.

        Raises:
            InputError: an unknown name, or a value out of its range; the message gives the first.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError(error_line(error, list(cls.model_fields))) from None


@cache
def _docstrings(source: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of the attributes of each class of a source file.

    Each file is parsed once; pydantic's `use_attribute_docstrings` parses it for each class.
    """
    docstrings: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(source).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            docstrings[node.name] = {
                field.target.id: inspect.cleandoc(text.value.value)
                for field, text in pairwise(node.body)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
    return docstrings


class CommonOptions(Options):
    """Options that many groups share; a group takes a field with `same`."""

    out: Path | None = None
    """File or folder for the results."""
    dtype: str = "auto"
    """Precision of the network."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of the random numbers."""
    symprec: float = Field(default=0.1, gt=0, lt=10)
    """Distance tolerance of the symmetry search, Å."""
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Time limit for one crystal, s."""


def same(group: type[BaseModel], name: str, **changes: Any) -> Any:
    """Return the field of another group, with another default, bound or description where they differ.

    `steps: int = same(RelaxOptions, "steps", default=500)`
    """
    field = group.model_fields[name]
    changes.setdefault("description", field.description)
    return FieldInfo.merge_field_infos(copy.copy(field), FieldInfo(**changes))


_UNION_MEMBERS = {"int", "float", "str", "bool", "none"}
_WHOLE = ("int_parsing", "int_from_float", "int_type")


def error_line(error: ValidationError, names: Sequence[str] = ()) -> str:
    """Return the first error of a validation as one line: the name, the value and what it must be.

    Args:
        names: of the options that exist, to suggest one of them for an unknown name.
    """
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["ctx"]["error"] if "ctx" in first else first["msg"])
    # Nested groups come before the name, the union member that pydantic tried after it.
    parts = [str(part) for part in first["loc"] if str(part).isidentifier() and part not in _UNION_MEMBERS]
    name = parts[-1] if parts else str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"unknown option {name!r}" + (f": {hint(name, names)}" if names else "")
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    message = "write a whole number" if first["type"] in _WHOLE else message[:1].lower() + message[1:]
    return f"{name} = {str(first['input'])[:40]!r}: {message}"


def read_mapping(path: Path, example: str) -> dict[str, Any] | None:
    """Read names and values from a YAML file.

    Args:
        example: a line that such a file may hold, for the error message.

    Returns:
        The mapping, its keys as strings; None for an empty file.

    Raises:
        InputError: not YAML, or not a mapping.
        CrystallmError: the file cannot be read.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:  # a day 45, 10,000 digits
        raise InputError(f"{path} is no YAML that can be read: {one_line(error)}") from None
    if content is None:
        return None
    if _holds_more(content, MAX_VALUES):
        raise InputError(
            f"{path} holds more than {MAX_VALUES:,} values, or itself: that is no list of options"
        )
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold names and values, such as {example!r}")
    return {str(name): value for name, value in content.items()}


def _holds_more(content: Any, limit: int) -> bool:
    """Return whether nested lists and mappings hold more values; aliases count each time they are met."""
    left, todo = limit, [content]
    while todo:
        value = todo.pop()
        left -= 1
        if left < 0:
            return True
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, (list, tuple, set)):
            todo += value
    return False


def import_object(path: str, option: str) -> Any:
    """Return what `module:name` names; the name may have dots.

    Args:
        path: of a function or class.
        option: that it was given for, for the message.

    Raises:
        InputError: no such module or name.
    """
    try:
        return resolve(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{option} = {path!r}: {describe(error)}; is its folder on PYTHONPATH?") from None


def hint(name: str, names: Sequence[str]) -> str:
    """Suggest the name that a misspelt or cut one is closest to, or list all names."""
    import difflib

    near = [full for full in names if name and full.startswith(name)]
    near = near or difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
