"""Paths of libraries travel to workers."""

from __future__ import annotations

from pathlib import Path

from crystallm.references.options import ReferenceOptions


def test_paths_become_absolute() -> None:
    known = ReferenceOptions(crystals_from="both", references=(Path("l.parquet"),)).absolute()
    assert known.references == (Path.cwd() / "l.parquet",)
    assert known.crystals_from == "both"


def test_auto_takes_known_crystals_where_there_are_some() -> None:
    def used(*, bundled: bool, **options: object) -> str:
        return ReferenceOptions(**options).resolved(bundled=bundled).crystals_from

    assert used(bundled=True) == "both"
    assert used(bundled=False) == "network"
    assert used(bundled=False, references=(Path("l.parquet"),)) == "both"
    assert used(bundled=True, crystals_from="network") == "network"
    assert used(bundled=False, crystals_from="references") == "references"
