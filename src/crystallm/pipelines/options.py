"""Options of runs: input files, folders of results, and what is done with a collection of crystals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from crystallm.crystals.selection import SelectionOptions
from crystallm.energy.options import (
    ChosenModelOptions,
    HullFileOptions,
    PreRelaxOptions,
    RelativeEnergyOptions,
    check_model,
)
from crystallm.errors import InputError
from crystallm.execution.place import DeviceOptions
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.options import ModelNameOptions
from crystallm.options import NOT_DECIDING, CommonOptions, Flag, Options, same
from crystallm.sources.options import KnownOptions, ReadOptions, SourceOptions


class OutOptions(Options):
    """Where the results of a run are stored."""

    out: Annotated[Path | None, NOT_DECIDING] = same(
        CommonOptions,
        "out",
        description="Folder for CIFs and results.parquet; the same command resumes there. none: nothing is "
        "saved.",
    )


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

    n: int = same(Request, "n", description="Number of crystals.")
    keep: Literal["all", "orbits"] = "all"
    """all: keep cell and coordinates of the given part; orbits: its Wyckoff positions only."""
    symprec: float = same(CommonOptions, "symprec")


class SearchRunOptions(OutOptions):
    """How a search is run and compared."""

    baseline: Literal["sampling"] | None = None
    """Then run plain sampling under the same limits; both are in the plots."""


class CollectionOptions(SourceOptions):
    """The collection of crystals that a command reads."""

    def collection(self) -> str:
        """Return the path of the collection. Raises InputError: there is none."""
        if self.path is None:
            raise InputError("no crystals: name a folder, an archive, a table or a CIF")
        return self.path


class EvaluateOptions(PreRelaxOptions, HullFileOptions, ReadOptions, OutOptions, CollectionOptions):
    """How to evaluate a collection: its validity, and on request energies, stability and novelty."""

    metastable_threshold: Annotated[float, NOT_DECIDING] = Field(default=0.1, ge=0, allow_inf_nan=False)
    """With --hull: crystals up to this energy above the hull are metastable, eV/atom."""
    known: tuple[str, ...] = same(
        KnownOptions,
        "known",
        description="Folders or files of known crystals, to report novelty; with --hull also S.U.N.",
    )

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

    best: int | None = same(
        SelectionOptions,
        "best",
        description="Cluster equal crystals and keep at most this number of each formula, lowest energy "
        "first.",
    )
    timeout: Annotated[float, NOT_DECIDING] = same(CommonOptions, "timeout", default=600.0)


class HullOptions(PreRelaxOptions, CollectionOptions):
    """How the energies of known crystals are computed, and of which; without `energy` by chgnet."""

    chemical_systems: str | None = None
    """Folder or file of crystals: keep only their chemical systems, and those below them."""
    out: Path | None = same(
        CommonOptions, "out", description="File for the entries, .jsonl, which --hull reads."
    )


class ScoreOptions(ModelNameOptions, DeviceOptions, CollectionOptions):
    """The model that scores a collection, and the file of the scores."""

    dtype: Literal["auto", "float32", "bfloat16"] = same(
        SamplingOptions, "dtype", description="Precision of the network; auto is float32."
    )
    symprec: float = same(CommonOptions, "symprec")
    out: Path | None = same(CommonOptions, "out", description="File for the scores: .csv or .parquet.")

    @field_validator("out")
    @classmethod
    def _check_ending(cls, out: Path | None) -> Path | None:
        if out is not None and out.suffix.lower() not in (".csv", ".parquet"):
            raise ValueError("name a file that ends in .csv or .parquet")
        return out
