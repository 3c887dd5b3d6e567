"""Names that are imported at first use."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest

from crystallm.lazy import public_names, resolve


@pytest.fixture
def package(monkeypatch):
    made = ModuleType("lazy_example")
    monkeypatch.setitem(sys.modules, "lazy_example", made)
    made.__getattr__, made.__dir__ = public_names(
        "lazy_example", {"root": "math", "sqrt": "math", "json": "json:"}
    )
    return made


def test_names_and_modules_are_imported_at_first_use_and_kept(package):
    assert package.sqrt is math.sqrt
    assert package.json.loads("[1]") == [1]
    assert vars(package)["sqrt"] is math.sqrt
    assert dir(package) == ["json", "root", "sqrt"]


def test_other_names_do_not_exist(package):
    with pytest.raises(AttributeError, match="module 'lazy_example' has no attribute 'cube'"):
        _ = package.cube
    with pytest.raises(AttributeError):
        _ = package.root  # the module has no such name


def test_a_name_of_module_and_attribute_is_imported():
    assert resolve("math:sqrt") is math.sqrt
    assert resolve("os:path.join").__name__ == "join"


@pytest.mark.parametrize(
    ("name", "error"), [("no_such_module:f", ImportError), ("math:f", AttributeError), (":f", ValueError)]
)
def test_other_names_are_not_imported(name, error):
    with pytest.raises(error):
        resolve(name)
