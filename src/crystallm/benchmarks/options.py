"""Options of the benchmarks. Imports pydantic only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from crystallm.benchmarks.reference_sets import SETS
from crystallm.errors import InputError
from crystallm.options import Flag, Options


class CspOptions(Options):
    """Crystal structure prediction: entries, samples and what counts as a match."""

    data: str | None = None
    """perov_5, carbon_24, mp_20, mpts_52, or a CSV(.gz) or Parquet file with a column 'cif'."""
    data_dir: Path | None = None
    """Folder that holds perov_5/test.csv.gz and so on. Default: CRYSTALLM_DATA."""
    n: Annotated[str, Flag(("-n",))] = "1,20"
    """Numbers of samples per entry: one, or several with commas."""
    limit: Annotated[int | None, Flag(("--entries",))] = None
    """Number of entries, spread evenly over the split; none: all."""
    split: str | None = None
    """train, val or test of a named set (default test); of a file, only rows whose column `split` says so."""
    space_group: bool = False
    """Add the known space group to the prompt."""
    generated: Path | None = None
    """Score crystals of another program: a folder or archive of CIFs ID__N.cif."""
    smact: Annotated[bool, Flag(("--composition-test",), negative=True)] = True
    """Count only samples that pass the SMACT test, as in the paper."""
    choose_by_agreement: Annotated[bool, Flag(("--agreement",), negative=True)] = True
    """Also choose one of n samples by agreement and likelihood: a third of a second per entry."""
    leave_out: Literal["refuse", "nothing", "id", "formula-group", "formula"] = "refuse"
    """With --from references or both: known crystals that are not used. id: those with the id of an entry;
    formula-group: also those with the reduced formula and space group of an entry; formula: also all others
    of such a formula; refuse: none, but a library that holds any by id or formula-group is an error."""
    out: Path | None = None
    """Folder for scores.json, report.html and results.parquet."""

    @field_validator("n")
    @classmethod
    def _check_numbers(cls, value: str) -> str:
        parts = value.strip("[]() ").split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise ValueError("write whole numbers from 1, such as 1,20")
        return value

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of samples per entry."""
        return tuple(int(part) for part in self.n.strip("[]() ").split(","))

    def required_data(self) -> str:
        """Return `data`. Raises InputError: it is missing."""
        if self.data is None:
            raise InputError(f"no data: name one of {', '.join(SETS)}, or a file with a column 'cif'")
        return self.data


class CompoundsOptions(Options):
    """Well-known compounds."""

    data: str | None = None
    """CSV(.gz), Parquet or folder of CIFs of known crystals. Default: 70 well-known ones of ours."""
    n: Annotated[int, Flag(("-n",))] = Field(default=20, ge=1)
    """Samples per compound."""
    prompt_with: Literal["composition", "group", "both"] = "both"
    """Prompt with the composition; with the space group too (group); or one after the other (both)."""
    limit: int | None = Field(default=None, ge=1)
    """Number of compounds, spread evenly over the file; none: all."""
    out: Path | None = None
    """JSON file for the shares and the result of each compound."""


class ClassesOptions(Options):
    """Structure classes."""

    data: str | None = None
    """CSV file with columns formula,class,a[,c,split], lengths in Å. Default: 249 compounds of ours."""
    classes: str | None = None
    """Some of rutile,spinel,elpasolite,pyrochlore,perovskite, with commas; none: all."""
    n: Annotated[int, Flag(("-n",))] = Field(default=5, ge=1)
    """Samples per formula."""
    limit: int | None = Field(default=None, ge=1)
    """Number of formulas per class, spread evenly; none: all."""
    unseen: bool = False
    """Only formulas that are not in the training data of the bundled models."""
    out: Path | None = None
    """JSON file for the scores and the cell of each formula."""


class UnconditionalOptions(Options):
    """Unconditional generation."""

    generated: str | None = None
    """Folder or file of structures (see crystallm prepare --help); also an --out folder."""
    truth: str | None = None
    """Test set: perov_5, carbon_24, mp_20, or a folder or file."""
    cutoffs: Literal["perov_5", "carbon_24", "mp_20"] | None = None
    """Cut-offs of coverage. Default: those of a named test set."""
    data_dir: Path | None = None
    """Folder that holds perov_5/test.csv.gz and so on. Default: CRYSTALLM_DATA."""
    n: Annotated[int, Flag(("-n",))] = Field(default=1000, ge=1)
    """Valid crystals drawn for the Wasserstein distances."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the draw."""
    workers: int | None = Field(default=None, ge=1)
    """Number of worker processes. Default: one per core."""
    out: Path | None = None
    """JSON file for the scores and the reasons."""


class NoveltyOptions(Options):
    """Novelty against reference structures."""

    generated: str | None = None
    """Folder or file of structures (see crystallm prepare --help); also an --out folder."""
    hull: Path | None = None
    """CSV with columns id, e_above_hull (eV/atom) of the generated crystals."""
    workers: int | None = Field(default=None, ge=1)
    """Number of worker processes. Default: one per core."""
    out: Path | None = None
    """JSON file for rates and results, or Parquet file with a row per crystal."""
