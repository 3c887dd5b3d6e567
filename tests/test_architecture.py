"""The direction of imports, and the page that draws it."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crystallm"
PAGE = ROOT / "docs" / "architecture.md"


def modules() -> dict[str, Path]:
    """Every module but the packages' own, by its name below `crystallm`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        found[name.removesuffix(".__init__")] = path
    return {name: path for name, path in found.items() if name not in ("__init__", "__main__")}


def test_the_page_names_every_module_and_no_other():
    table = PAGE.read_text(encoding="utf-8").split("<!-- modules -->")[1]
    told = re.findall(r"^\| `([\w.]+)` \|", table, flags=re.MULTILINE)
    assert sorted(told) == sorted(modules())
    assert len(told) > 100


def test_every_module_says_what_it_does():
    for name, path in modules().items():
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert said, name
        assert said.split("\n")[0].endswith((".", "?", ":")), name


@pytest.mark.skipif(importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed")
def test_imports_go_one_way():
    """The contracts of pyproject.toml, by import-linter."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "0 broken" in run.stdout


def test_nothing_needs_more_of_pymatgen_than_its_core():
    """`pymatgen.analysis` comes with the full pymatgen, which two extras alone bring along."""
    for name, path in modules().items():
        if name in ("energy.hull", "web.desk"):  # phase diagrams, powder patterns
            continue
        assert "pymatgen.analysis" not in path.read_text(encoding="utf-8"), name


BARE = ("tokenizer", "orbits", "grammar", "model", "checkpoint", "decode", "dataset", "training", "hf", "hub")


def test_what_trains_and_samples_needs_neither_pymatgen_nor_pyarrow():
    """A bare GPU machine has torch and numpy, and perhaps no more."""
    names = ", ".join(f"crystallm.{name}" for name in BARE)
    script = f"import sys, {names}; print(sorted({{'pymatgen', 'pyarrow', 'spglib'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
