"""Options of libraries of known crystals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from crystallm.datasets.options import PrepareOptions
from crystallm.options import NOT_DECIDING, CommonOptions, Flag, Options, same


class ReferenceOptions(Options):
    """Where candidates come from: a network, or known crystals with other elements."""

    crystals_from: Annotated[
        Literal["auto", "network", "references", "both", "reading"], Flag(name="--from")
    ] = "auto"
    """network: crystals are sampled; references: they are made of known crystals of the same proportions, by
    replacing elements; both: half of each; reading: sampled by a network that reads these first (see
    crystallm train --relatives-share); auto: both with the bundled model or where --references names
    crystals, else network."""
    references: Annotated[tuple[Path, ...], Flag(several=True)] = ()
    """Libraries of known crystals (see crystallm references build), or collections of crystals, such as a
    folder of CIFs; default: the library of this package."""

    @property
    def reading(self) -> bool:
        """Whether a network reads known crystals and writes all crystals."""
        return self.crystals_from == "reading"

    def resolved(self, *, bundled: bool) -> Self:
        """Return the options with `auto` replaced by what it stands for.

        Args:
            bundled: whether crystals of the library of this package may be used.
        """
        if self.crystals_from != "auto":
            return self
        use = "both" if bundled or self.references else "network"
        return self.model_copy(update={"crystals_from": use})

    def absolute(self) -> Self:
        """Return the options with absolute paths, for workers in other folders."""
        return self.model_copy(update={"references": tuple(path.resolve() for path in self.references)})


class SearchReferenceOptions(ReferenceOptions):
    """Where the crystals of a search come from."""

    crystals_from: Annotated[Literal["auto", "network", "both"], Flag(name="--from")] = same(
        ReferenceOptions,
        "crystals_from",
        description="network: all crystals are sampled; both: the first ones are made of known crystals of "
        "the same proportions, by replacing elements; auto: both with the bundled model or where "
        "--references names crystals, else network. For the method elites.",
    )


class CompleteReferenceOptions(ReferenceOptions):
    """Where completed crystals come from."""

    crystals_from: Annotated[Literal["auto", "network", "both"], Flag(name="--from")] = same(
        ReferenceOptions,
        "crystals_from",
        description="network: the missing atoms are sampled; both: half of the crystals take them from known "
        "crystals that contain the given part, with other elements; auto: both with the bundled model or "
        "where --references names crystals, else network.",
    )


class LibraryOptions(Options):
    """Which known crystals become a library."""

    collections: Annotated[tuple[str, ...], NOT_DECIDING] = ()
    """Collections of crystals; also the positional arguments."""
    library: Annotated[Path | None, NOT_DECIDING, Flag(name="--out")] = None
    """File of the library, .parquet; the same command resumes a killed run."""
    only_split: Annotated[Literal["train", "val", "test"] | None, Flag(name="--split")] = None
    """Keep only the crystals of this split; none: all."""


class ReadingOptions(Options):
    """Which relatives are added to a data set."""

    references: Annotated[tuple[Path, ...], Flag(several=True)] = same(ReferenceOptions, "references")
    per_crystal: Annotated[int, Flag(("-n", "--per-crystal"))] = Field(default=4, ge=1, le=100)
    """Number of relatives of each crystal, at most."""


class HypotheticalOptions(Options):
    """Which hypothetical crystals are made."""

    out: Annotated[Path | None, NOT_DECIDING] = same(
        CommonOptions,
        "out",
        description="Folder for the data set; the same command resumes a killed run.",
    )
    references: Annotated[tuple[Path, ...], Flag(several=True)] = same(ReferenceOptions, "references")
    exclude: Annotated[tuple[str, ...], Flag(several=True)] = same(
        PrepareOptions,
        "exclude",
        description="Libraries or collections, such as test sets, of whose formulas no crystal is made.",
    )
    formulas: Annotated[int, Flag(("-n", "--formulas"))] = Field(default=100_000, ge=1)
    """Number of formulas, each with no, one or two crystals."""
    least_probability: float = Field(default=0.25, ge=0.0, le=1.0)
    """Least probability of a crystal, given its formula, by what is known of its relatives."""
    seed: int = same(CommonOptions, "seed", lt=2**63, description="Seed of the formulas.")
