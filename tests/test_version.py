"""The version: one for the package, its metadata and the citation."""

from __future__ import annotations

import tomllib
from pathlib import Path

import crystallm
from crystallm.version import __version__

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert crystallm.__version__ == __version__
    assert "version" in project.get("dynamic", ()) or project["version"] == __version__
