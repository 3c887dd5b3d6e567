"""Options of `crystallm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from crystallm.crystals.selection import SelectionOptions
from crystallm.models.options import ConvertOptions
from crystallm.options import CommonOptions, Flag, same
from crystallm.sources.options import SourceOptions

Format = Literal["cif", "poscar", "extxyz", "ase", "csv", "pymatgen", "optimade", "genbench"]


class ExportOptions(SourceOptions):
    """Which crystals to export, and how."""

    to: Format | None = same(
        ConvertOptions,
        "to",
        description="Format: folders of CIFs or POSCARs, or one file; genbench is the folder of "
        "LeMat-GenBench.",
    )
    out: Path | None = same(
        CommonOptions,
        "out",
        description="File or folder to create; none: named after the input, in the current folder.",
    )
    only_valid: bool = same(
        SelectionOptions, "only_valid", description="Leave out crystals of a run that are not plausible."
    )
    everything: Annotated[bool, Flag(name="--all")] = False
    """Also export crystals that the options of the run, such as --only-valid and --best, have dropped."""
