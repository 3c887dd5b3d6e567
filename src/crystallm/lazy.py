"""Names that are imported at first use: those of a package, and `module:attribute`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any


def public_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package.

    Args:
        homes: full name of the module that defines each public name; or the full name of a module, which
            then is the value, with a colon behind it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = import_module(home.rstrip(":"))
        value = module if home.endswith(":") else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(homes)


def resolve(name: str) -> Any:
    """Import what `module:attribute` names.

    Raises:
        ImportError, AttributeError: there is no such module or attribute.
        ValueError: a name without module or attribute.
    """
    module, _, attribute = name.partition(":")
    return attrgetter(attribute)(import_module(module))
