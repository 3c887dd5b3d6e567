"""Options of runs: input files and folders of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from crystallm.options import Flag, Options


class GenerateOptions(Options):
    """Files that a run of `crystallm generate` reads and writes."""

    out: Path | None = None
    """Folder for CIFs and results.parquet (or results/); none: nothing is saved."""
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
