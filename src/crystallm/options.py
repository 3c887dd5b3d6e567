"""Options in YAML files: names and values. Refuses to know what they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def read_mapping(path: Path, example: str) -> dict[str, Any] | None:
    """What a YAML file holds, its keys as strings; None for nothing.

    Args:
        path: of the file.
        example: a line that such a file may have, for whoever wrote something else.

    Raises:
        InputError: no YAML, or no mapping.
        CrystallmError: the file cannot be read.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {error}") from None
    if content is None:
        return None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold names and values, such as {example!r}")
    return {str(name): value for name, value in content.items()}


def hint(name: str, names: Sequence[str]) -> str:
    """What somebody may have meant by a name that there is not."""
    import difflib

    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class NotDeciding:
    """Marks a field that does not decide the results of a run: `device: Annotated[str, NOT_DECIDING]`."""


NOT_DECIDING = NotDeciding()


def deciding(options: BaseModel) -> dict[str, Any]:
    """Return the values, as JSON, of those options that decide the results of a run."""
    aside = {name for name, field in type(options).model_fields.items() if NOT_DECIDING in field.metadata}
    return options.model_dump(mode="json", exclude=aside)


Kind = TypeVar("Kind", bound=BaseModel)


def validated(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Build a Request, Settings, or any such model.

    Raises:
        InputError: an unknown key, or a value out of its range; the message names the first.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(str(first["ctx"]["error"] if "ctx" in first else first["msg"])) from None
        name = str(first["loc"][0])  # what follows is which of several types was tried
        if first["type"] == "extra_forbidden":
            raise InputError(f"unknown option {name!r}: there are {', '.join(kind.model_fields)}") from None
        said = first["msg"][:1].lower() + first["msg"][1:]
        raise InputError(f"{name} = {str(first['input'])[:40]!r}: {said}") from None
