"""What is built holds what it needs, and nothing that it need not."""

from __future__ import annotations

import importlib.util
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "crystallm"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"
)


def sources() -> set[str]:
    """Every file of the package, weights, tables and recipes among them, as a wheel names it."""
    return {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_the_wheel_holds_the_package_and_no_more(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        (scripts,) = (n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
        assert "crystallm = crystallm.cli.app:main" in wheel.read(scripts).decode()
        assert "License-Expression: MIT" in wheel.read(metadata).decode()
    assert names == sources()
    for needed in (
        "models/weights/default/config.json",
        "crystallography/data/elements.json",
        "crystallography/data/spacegroups.json.gz",
        "cif/vocabulary.json",
        "models/published.json",
        "training/recipes/default.yaml",
        "py.typed",
    ):
        assert f"crystallm/{needed}" in names
    assert any(name.endswith(".safetensors") for name in names)
    assert Path(built).stat().st_size < 20_000_000  # whoever installs it waits for it


def test_the_sdist_builds_tests_and_explains(tmp_path):
    from hatchling.builders.sdist import SdistBuilder

    (built,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    head = f"crystallm-{version}/"
    with tarfile.open(built) as sdist:
        names = {name.removeprefix(head) for name in sdist.getnames()}
    assert {f"src/{name}" for name in sources()} <= names
    for needed in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/index.md",
    ):
        assert needed in names
    assert "tests/golden/texts.jsonl.gz" in names
    assert not [name for name in names if name.startswith(("models/", "out/", ".git/", ".venv/"))]
