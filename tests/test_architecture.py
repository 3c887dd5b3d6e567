"""Direction of imports, sizes, names, mirrored tests, words, and the page that draws the packages."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys

import pytest

import house

PAGE = house.ROOT / "docs" / "architecture.md"


def test_the_page_names_every_module_and_no_other():
    """After a module is added or moved: python scripts/make_architecture.py."""
    table = PAGE.read_text(encoding="utf-8").split("<!-- modules -->")[1]
    named = re.findall(r"^\| `([\w.]+)` \|", table, flags=re.MULTILINE)
    assert sorted(named) == sorted(
        name for name, path in house.modules().items() if path.name != "__init__.py"
    )
    assert len(named) > 100


def test_the_page_points_to_files_that_exist():
    table = (
        PAGE.read_text(encoding="utf-8")
        .split("## Where to change what")[1]
        .split("## Layers")[0]
        .split("|---|")[1]
    )
    for target in re.findall(r"`([\w/]+(?:\.py|/))`", table):
        assert (house.PACKAGE / target).exists(), target


def test_every_module_has_a_docstring_that_starts_with_a_sentence():
    for name, path in house.modules().items():
        docstring = ast.get_docstring(house.tree(path))
        assert docstring, name
        assert docstring.split("\n")[0].endswith((".", "?", ":")), name


@pytest.mark.skipif(importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed")
def test_imports_go_one_way():
    """The contracts of pyproject.toml, by import-linter."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache", "--config", str(house.ROOT / "pyproject.toml")]
    run = subprocess.run(command, cwd=house.ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "0 broken" in run.stdout


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("modules", f"at most {house.MODULE_LINES} lines a module"),
        ("functions", f"at most {house.FUNCTION_LINES} lines a function, signature and docstring aside"),
        ("classes", f"at most {house.CLASS_LINES} lines a class"),
        ("class_names", "a class name is unique"),
        ("packages", f"at most {house.PACKAGE_FILES} files a package"),
        ("circles", "no circle of imports, those for typing and inside functions among them"),
        ("mirrors_nothing", "a test file has the name of a module, or is in tests/integration"),
        ("option_declarations", "name, default, bound and help of an option stand in one place"),
        ("untested", "every module has its test file"),
        ("words", "no word of the glossary's left column: " + ", ".join(house.WORDS)),
    ],
)
def test_limits_hold_but_for_shrinking_allowances(kind, limit):
    assert house.complaints(kind) == [], limit


def test_at_most_seven_modules_lie_beside_the_packages():
    beside = [name for name, path in house.modules().items() if path.parent == house.PACKAGE]
    assert len(beside) <= house.TOP_MODULES, beside


def test_nothing_needs_more_of_pymatgen_than_its_core():
    """`pymatgen.analysis` comes with the full pymatgen, which an extra alone installs."""
    users = [
        name
        for name, path in house.modules().items()
        if "pymatgen.analysis" in path.read_text(encoding="utf-8")
    ]
    assert users == ["thermodynamics.hull"]


BARE = (
    "tokenizer",
    "orbits.language",
    "grammar.factory",
    "network.transformer",
    "models.load",
    "models.huggingface",
    "models.hub",
    "sampling.sample",
    "datasets.packing",
    "training.loop",
)


def test_what_trains_and_samples_needs_neither_pymatgen_nor_pyarrow():
    """A bare GPU machine has torch and numpy, and perhaps no more."""
    names = ", ".join(f"crystallm.{name}" for name in BARE)
    script = f"import sys, {names}; print(sorted({{'pymatgen', 'pyarrow', 'spglib'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
