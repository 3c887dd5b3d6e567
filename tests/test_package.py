from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import crystallm

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_public_names_are_there():
    assert set(crystallm.__all__) <= set(dir(crystallm))
    for name in crystallm.__all__:
        assert getattr(crystallm, name) is not None
    for name in ("cif", "tokenizer", "validity", "orbits", "formula"):
        assert getattr(crystallm, name).__name__ == f"crystallm.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = crystallm.nothing


def test_importing_the_package_loads_nothing_heavy():
    script = "import sys, crystallm; sys.exit(bool({'torch', 'pymatgen', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_generate_stays_a_function_when_its_module_is_imported():
    import crystallm.generation

    assert callable(crystallm.generate)
    assert crystallm.generate is crystallm.generation.generate


def test_the_version_is_one_in_all_places():
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert PROJECT["project"]["version"] == crystallm.__version__
    assert f"\nversion: {crystallm.__version__}\n" in citation


def test_the_package_is_typed():
    assert resources.files("crystallm").joinpath("py.typed").is_file()


def test_runtime_dependencies_are_ranges():
    assert not [name for name in PROJECT["project"]["dependencies"] if "==" in name]


def test_the_constraints_pin_every_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    asked = list(PROJECT["project"]["dependencies"])
    for extra in ("test", "lint"):
        asked += PROJECT["project"]["optional-dependencies"][extra]
    names = {name.split(">")[0].split("=")[0].lower() for name in asked}
    assert names <= pinned
