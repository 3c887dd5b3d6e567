"""Paths of libraries travel to workers."""

from __future__ import annotations

from pathlib import Path

from crystallm.references.options import ReferenceOptions


def test_paths_become_absolute() -> None:
    known = ReferenceOptions(crystals_from="both", references=(Path("l.parquet"),)).absolute()
    assert known.references == (Path.cwd() / "l.parquet",)
    assert known.crystals_from == "both"
