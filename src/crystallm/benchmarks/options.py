"""Options of the benchmarks. Imports pydantic only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from crystallm.benchmarks.reference_sets import SETS
from crystallm.datasets.options import PromptOptions
from crystallm.energy.options import EnergyModelOptions
from crystallm.errors import InputError
from crystallm.execution.place import WorkerOptions
from crystallm.generation.request import Request
from crystallm.options import CommonOptions, Flag, Options, same
from crystallm.sources.options import KnownOptions
from crystallm.training.recipe import RecipeOptions


class BenchmarkOptions(Options):
    """Options that several benchmarks share."""

    data: str | None = None
    """Reference crystals."""
    data_dir: Path | None = None
    """Folder that holds perov_5/test.csv.gz and so on. Default: CRYSTALLM_DATA."""
    limit: int | None = Field(default=None, ge=1)
    """Number of entries, spread evenly; none: all."""
    generated: str | None = None
    """Folder or file of structures (see crystallm prepare --help); also an --out folder."""


class CspOptions(Options):
    """Crystal structure prediction: entries, samples and what counts as a match."""

    data: str | None = same(
        BenchmarkOptions,
        "data",
        description="perov_5, carbon_24, mp_20, mpts_52, or a CSV(.gz) or Parquet file with a column 'cif'.",
    )
    data_dir: Path | None = same(BenchmarkOptions, "data_dir")
    n_samples: Annotated[str, Flag(("-n",), name="--n")] = "1,20"
    """Numbers of samples per entry: one, or several with commas."""
    limit: Annotated[int | None, Flag(("--entries",))] = same(
        BenchmarkOptions, "limit", description="Number of entries, spread evenly over the split; none: all."
    )
    split: str | None = same(
        PromptOptions,
        "split",
        description="train, val or test of a named set (default test); of a file, only rows whose column "
        "`split` says so.",
    )
    with_group: bool = same(
        PromptOptions, "with_group", description="Add the known space group to the prompt."
    )
    generated: Path | None = same(
        BenchmarkOptions,
        "generated",
        description="Score crystals of another program: a folder or archive of CIFs ID__N.cif.",
    )
    smact: Annotated[bool, Flag(negative=True)] = True
    """Count only samples that pass the SMACT test, as in the paper."""
    choose_by_agreement: Annotated[bool, Flag(negative=True)] = True
    """Also choose one of n samples by agreement and likelihood: a third of a second per entry."""
    leave_out: Literal["refuse", "nothing", "id", "formula-group", "formula"] = "refuse"
    """With --from references or both: known crystals that are not used. id: those with the id of an entry;
    formula-group: also those with the reduced formula and space group of an entry; formula: also all others
    of such a formula; refuse: none, but a library that holds any by id or formula-group is an error."""
    out: Path | None = same(
        CommonOptions, "out", description="Folder for scores.json, report.html and results.parquet."
    )

    @field_validator("n_samples")
    @classmethod
    def _check_numbers(cls, value: str) -> str:
        parts = value.strip("[]() ").split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise ValueError("write whole numbers from 1, such as -n 1,20")
        return value

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of samples per entry."""
        return tuple(int(part) for part in self.n_samples.strip("[]() ").split(","))

    def required_data(self) -> str:
        """Return `data`. Raises InputError: it is missing."""
        if self.data is None:
            raise InputError(f"no data: name one of {', '.join(SETS)}, or a file with a column 'cif'")
        return self.data


class CompoundsOptions(Options):
    """Well-known compounds."""

    data: str | None = same(
        BenchmarkOptions,
        "data",
        description="CSV(.gz), Parquet or folder of CIFs of known crystals. Default: 70 well-known ones of "
        "ours.",
    )
    n: int = same(Request, "n", default=20, description="Samples per compound.")
    prompt_with: Literal["composition", "group", "both"] = "both"
    """Prompt with the composition; with the space group too (group); or one after the other (both)."""
    limit: int | None = same(
        BenchmarkOptions, "limit", description="Number of compounds, spread evenly over the file; none: all."
    )
    out: Path | None = same(
        CommonOptions, "out", description="JSON file for the shares and the result of each compound."
    )


class ClassesOptions(Options):
    """Structure classes."""

    data: str | None = same(
        BenchmarkOptions,
        "data",
        description="CSV file with columns formula,class,a[,c,split], lengths in Å. Default: 249 compounds "
        "of ours.",
    )
    classes: str | None = None
    """Some of rutile,spinel,elpasolite,pyrochlore,perovskite, with commas; none: all."""
    n: int = same(Request, "n", default=5, description="Samples per formula.")
    limit: int | None = same(
        BenchmarkOptions, "limit", description="Number of formulas per class, spread evenly; none: all."
    )
    unseen: bool = False
    """Only formulas that are not in the training data of the bundled models."""
    out: Path | None = same(
        CommonOptions, "out", description="JSON file for the scores and the cell of each formula."
    )


class UnconditionalOptions(WorkerOptions):
    """Unconditional generation."""

    generated: str | None = same(BenchmarkOptions, "generated")
    truth: str | None = None
    """Test set: perov_5, carbon_24, mp_20, or a folder or file."""
    cutoffs: Literal["perov_5", "carbon_24", "mp_20"] | None = None
    """Cut-offs of coverage. Default: those of a named test set."""
    data_dir: Path | None = same(BenchmarkOptions, "data_dir")
    n: int = same(
        Request, "n", default=1000, description="Valid crystals drawn for the Wasserstein distances."
    )
    seed: int = same(CommonOptions, "seed", lt=2**63, description="Seed of the draw.")
    out: Path | None = same(CommonOptions, "out", description="JSON file for the scores and the reasons.")


class NoveltyOptions(KnownOptions, WorkerOptions):
    """Novelty against reference structures."""

    generated: str | None = same(BenchmarkOptions, "generated")
    hull_energies: Path | None = None
    """CSV with columns id, e_above_hull (eV/atom) of the generated crystals."""
    out: Path | None = same(
        CommonOptions,
        "out",
        description="JSON file for rates and results, or Parquet file with a row per crystal.",
    )


class ConditionOptions(WorkerOptions):
    """Requested values of properties."""

    data: str | None = same(
        BenchmarkOptions,
        "data",
        description="Data set of crystallm prepare with the known values.",
    )
    condition: Annotated[tuple[str, ...], Flag(several=True)] = same(
        RecipeOptions,
        "condition",
        description="Properties to request, each alone. Default: all of the model.",
    )
    given: Literal["nothing", "elements", "formula", "cell"] = "formula"
    """What is requested beside the value: nothing; the elements of the known crystal; its reduced formula; or
    the composition of its conventional cell."""
    factors: Annotated[tuple[float, ...], Flag(several=True)] = (1.0,)
    """Multiples of the known value to request; several, such as 0.9 1 1.1, tell what the value decides within
    one formula."""
    predictor: Annotated[tuple[str, ...], Flag(several=True)] = ()
    """Functions that compute properties, band_gap=module:function, from a list of structures to numbers."""
    energy: str = same(
        EnergyModelOptions, "energy", default="chgnet", description="Energy model of formation energies."
    )
    split: str | None = same(
        PromptOptions, "split", description="Split of the data set: train, val (default) or test."
    )
    n: int = same(Request, "n", default=1, description="Samples per requested value.")
    limit: int | None = same(
        BenchmarkOptions, "limit", default=200, description="Number of known crystals; none: all."
    )
    out: Path | None = same(
        CommonOptions, "out", description="JSON file for the scores and the values of each sample."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Properties to request."""
        return tuple(name for text in self.condition for name in text.replace(",", " ").split())
