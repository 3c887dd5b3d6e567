"""Options of runs: input files, folders of results, and what is done with a collection of crystals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from crystallm.energy.options import (
    ChosenModelOptions,
    HullFileOptions,
    PreRelaxOptions,
    RelativeEnergyOptions,
    check_model,
)
from crystallm.errors import InputError
from crystallm.execution.place import DeviceOptions
from crystallm.options import NOT_DECIDING, Flag, Options


class OutOptions(Options):
    """Where the results of a run are stored."""

    out: Annotated[Path | None, NOT_DECIDING] = None
    """Folder for CIFs and results.parquet; the same command resumes there. none: nothing is saved."""


class GenerateOptions(OutOptions):
    """Files that a run of `crystallm generate` reads and writes."""

    requests: Path | None = None
    """File of requests: CSV or Parquet with the column formula or elements, and optionally z, space_group
    and n; .txt with a formula a line; .csv.gz, .txt.gz. Needs --out."""
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


class CollectionOptions(Options):
    """The collection of crystals that a command reads."""

    path: Annotated[str | None, NOT_DECIDING] = None
    """Folder or file of structures (see crystallm prepare --help), or an --out folder of another command."""

    def collection(self) -> str:
        """Return the path of the collection. Raises InputError: there is none."""
        if self.path is None:
            raise InputError("no crystals: name a folder, an archive, a table or a CIF")
        return self.path


class EvaluateOptions(PreRelaxOptions, HullFileOptions, OutOptions, CollectionOptions):
    """How to evaluate a collection: its validity, and on request energies, stability and novelty."""

    read_as: Literal["auto", "text"] = "auto"
    """text: check what a CIF prints, as the paper does; auto: the same for CIFs in the form of this package,
    while those of other programs are symmetrized first."""
    metastable_threshold: Annotated[float, NOT_DECIDING] = Field(default=0.1, ge=0, allow_inf_nan=False)
    """With --hull: crystals up to this energy above the hull are metastable, eV/atom."""
    known: Annotated[tuple[str, ...], Flag(several=True)] = ()
    """Folders or files of known crystals, to report novelty; with --hull also S.U.N."""

    @model_validator(mode="after")
    def _check_combination(self) -> EvaluateOptions:
        check_model(self, "relax", "hull")
        if "metastable_threshold" in self.model_fields_set and self.hull is None:
            raise ValueError(f"metastable_threshold = {self.metastable_threshold} without hull: set both")
        return self

    @property
    def compares(self) -> bool:
        """Whether energies, uniqueness or novelty are requested besides validity."""
        return self.energy is not None or bool(self.known)


class RelaxCollectionOptions(RelativeEnergyOptions, ChosenModelOptions, OutOptions, CollectionOptions):
    """The energy model that relaxes a collection, and which of its crystals are kept."""

    best: int | None = Field(default=None, ge=1)
    """Cluster equal crystals and keep at most this number of each formula, lowest energy first."""
    timeout: Annotated[float, NOT_DECIDING] = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Time limit for one crystal, s."""


class HullOptions(PreRelaxOptions, CollectionOptions):
    """How the energies of known crystals are computed, and of which; without `energy` by chgnet."""

    chemical_systems: str | None = None
    """Folder or file of crystals: keep only their chemical systems, and those below them."""
    out: Path | None = None
    """File for the entries, .jsonl, which --hull reads."""


class ScoreOptions(DeviceOptions, CollectionOptions):
    """The model that scores a collection, and the file of the scores."""

    model: str = "default"
    """Bundled or published name, folder, ckpt.pt or its archive, hf:org/name."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the network; auto is float32."""
    symprec: float = Field(default=0.1, gt=0, lt=10)
    """Tolerance of the symmetry search, Å."""
    out: Path | None = None
    """File for the scores: .csv or .parquet."""

    @field_validator("out")
    @classmethod
    def _check_ending(cls, out: Path | None) -> Path | None:
        if out is not None and out.suffix.lower() not in (".csv", ".parquet"):
            raise ValueError("name a file that ends in .csv or .parquet")
        return out
