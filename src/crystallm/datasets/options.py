"""Options of `prepare` and `prompts`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from crystallm.datasets.properties import parse_properties
from crystallm.options import CommonOptions, Flag, Options, same
from crystallm.sources.options import SourceOptions


class PrepareOptions(Options):
    """How the rows of a collection become a data set."""

    language: Literal["orbits", "cif", "none"] = "orbits"
    """Language of the tokens; none: no tokens, CIFs in rows.parquet, read, filtered and split."""
    symprec: float = same(CommonOptions, "symprec", le=1, allow_inf_nan=False)
    standardize: bool = False
    """With language none: write the conventional standardized cell instead of the original CIF."""
    max_length: int = Field(default=1024, ge=1)
    """Maximum number of tokens of a crystal; the context of the network to be trained."""
    max_atoms: int | None = Field(default=None, ge=1)
    """Maximum number of atoms in the given cell; none: any."""
    min_volume: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Minimum volume per atom, Å^3; none: any."""
    max_volume: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Maximum volume per atom, Å^3; none: any."""
    min_distance: float = Field(default=0.5, ge=0, le=5, allow_inf_nan=False)
    """Minimum distance of two atoms, Å; 0: any."""
    deduplicate: Literal["auto", "formula-group", "text", "none"] = "auto"
    """formula-group: of crystals with the same cell formula and space group, keep the one with the smallest
    volume per formula unit; text: drop those with the text of an earlier one; none: keep all; auto: none
    where splits are given, else formula-group, as the paper does with its benchmarks and its large set."""
    split_by: str = "auto"
    """given: by the inputs and their column split, all others for training; random; formula: random, without
    a reduced formula in two splits; or a CSV file (id,split) or JSON file {split: [ids]}; auto: given if an
    input states splits, else random."""
    val_fraction: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Fraction, or number from 1, of the crystals for validation. The default is the paper's."""
    test_fraction: float = Field(default=0.0045, ge=0, allow_inf_nan=False)
    """Fraction, or number from 1, of the crystals for testing. The default is the paper's."""
    augmentations: int = Field(default=0, ge=0, le=1000)
    """With language orbits: number of equivalent descriptions of each training crystal beside the canonical
    one, for crystallm train --augmentation-share."""
    seed: int = same(
        CommonOptions,
        "seed",
        lt=2**63,
        description="Seed of random splits and of equivalent descriptions.",
    )
    properties: Annotated[tuple[str, ...], Flag(name="--property", several=True)] = ()
    """Number columns of the collections to keep for crystallm train --condition: band_gap,hardness:GPa (unit
    after the colon). Values may be missing. density and volume_per_atom need no column."""
    property_table: Path | None = None
    """CSV file with the columns id and the properties, for collections without columns, such as CIFs; an id
    is the name of a file without its ending."""
    exclude: Annotated[tuple[str, ...], Flag(several=True)] = ()
    """Collections, such as test sets, whose crystals must not be in the data set."""
    exclude_by: Annotated[tuple[Literal["id", "formula-group", "structure"], ...], Flag(several=True)] = (
        "id",
        "formula-group",
    )
    """What identifies their crystals: id; formula-group, reduced formula and space group; structure, by
    pymatgen's StructureMatcher (0.2, 0.3, 5 degrees) within a reduced formula."""

    allow_unreadable: bool = False
    """Go on if an excluded crystal cannot be read, of which only the id is then known; else stop."""

    @model_validator(mode="after")
    def _check_combination(self) -> PrepareOptions:
        if self.min_volume is not None and self.max_volume is not None and self.min_volume > self.max_volume:
            raise ValueError(f"min_volume = {self.min_volume} is above max_volume = {self.max_volume}")
        val, test = self.val_fraction, self.test_fraction
        for name, value in (("val_fraction", val), ("test_fraction", test)):
            if value > 1 and value != int(value):
                raise ValueError(f"{name} = {value}: write a fraction below 1, or a whole number of crystals")
        if val < 1 and test < 1 and val + test >= 1:
            raise ValueError(f"val_fraction = {val} and test_fraction = {test} leave nothing for training")
        if self.augmentations and self.language != "orbits":
            raise ValueError(
                f"augmentations = {self.augmentations}: only the language orbits has equivalent "
                f"descriptions, not {self.language!r}"
            )
        if self.property_table is not None and not parse_properties(self.properties):
            raise ValueError("property_table without a property: name its columns with --property")
        if self.standardize and self.language != "none":
            raise ValueError(f"standardize goes with language none; {self.language!r} does so anyway")
        if self.language == "none" and self.deduplicate == "text" and not self.standardize:
            raise ValueError("deduplicate = 'text' needs a language, or standardize")
        return self

    @property
    def needs_symmetry(self) -> bool:
        """Whether a symmetry search is needed even without a language."""
        by_group = bool(self.exclude) and "formula-group" in self.exclude_by
        return self.standardize or by_group or self.deduplicate == "formula-group"


class PrepareFiles(Options):
    """The collections and the data set of `crystallm prepare`."""

    inputs: Annotated[tuple[str, ...], Flag(several=True)] = ()
    """Collections of structures, each optionally with =train, =val or =test: folders and archives of CIFs or
    POSCARs, CSV, Parquet, JSON, JSON Lines, extended XYZ, ASE databases, .pkl.gz."""
    out: Path | None = same(CommonOptions, "out", description="Folder for the data set.")


class PromptOptions(Options):
    """The crystals of `crystallm prompts`, and what their prompts hold."""

    path: str | None = same(
        SourceOptions,
        "path",
        description="Folder or file of known crystals, or a data set of crystallm prepare.",
    )
    out: Path | None = same(CommonOptions, "out", description="File for the prompts, .csv.")
    with_group: bool = False
    """Put the space group into the prompts."""
    split: str | None = None
    """Only the crystals of this split: train, val or test."""
    symprec: float = same(CommonOptions, "symprec", le=1)
