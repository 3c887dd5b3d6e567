"""Options of runs: input files and folders of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from crystallm.options import Flag, Options


class OutOptions(Options):
    """Where the results of a run are stored."""

    out: Path | None = None
    """Folder for CIFs and results.parquet; the same command resumes there. none: nothing is saved."""


class GenerateOptions(OutOptions):
    """Files that a run of `crystallm generate` reads and writes."""

    requests: Path | None = None
    """File of requests: CSV or Parquet with columns formula (or elements)[,z][,space_group][,n]; .txt, a
    formula a line; .csv.gz, .txt.gz. Needs --out."""
    prompt_file: Path | None = None
    """File with a prompt, in place of --prompt."""
    template: Path | None = None
    """Crystal whose space group and Wyckoff positions to keep, with the elements of the formula."""
    write_cifs: Annotated[bool | None, Flag(negative=True)] = None
    """Write a CIF for each crystal. Default: yes, up to 10,000 crystals."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the network in this process; none: the cores it may use. Worker processes have one."""


class CompleteOptions(OutOptions):
    """How a part of a crystal is completed."""

    n: Annotated[int, Flag(("-n", "--samples"))] = Field(default=10, ge=1)
    """Number of crystals."""
    keep: Literal["all", "orbits"] = "all"
    """all: keep cell and coordinates of the given part; orbits: its Wyckoff positions only."""
    symprec: float = Field(default=0.1, gt=0, lt=10)
    """Tolerance of the symmetry search, Å."""


class SearchRunOptions(OutOptions):
    """How a search is run and compared."""

    baseline: Literal["sampling"] | None = None
    """Then run plain sampling under the same limits; both are in the plots."""
