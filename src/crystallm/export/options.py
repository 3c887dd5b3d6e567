"""Options of `crystallm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from crystallm.options import Flag, Options

Format = Literal["cif", "poscar", "extxyz", "ase", "csv", "pymatgen", "optimade", "genbench"]


class ExportOptions(Options):
    """Which crystals to export, and how."""

    path: str | None = None
    """Folder or file of structures (see crystallm prepare --help), or an --out folder of another command."""
    to: Format | None = None
    """Format: folders of CIFs or POSCARs, or one file; genbench is the folder of LeMat-GenBench."""
    out: Path | None = None
    """File or folder to create; none: named after the input, in the current folder."""
    only_valid: bool = False
    """Leave out crystals of a run that are not plausible."""
    everything: Annotated[bool, Flag(name="--all")] = False
    """Also export crystals that the options of the run, such as --only-valid and --best, have thrown out."""
