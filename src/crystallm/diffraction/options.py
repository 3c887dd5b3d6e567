"""Options of powder patterns, and of how their crystals are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from crystallm.generation.request import CellOptions, Request
from crystallm.options import Flag, Options, same
from crystallm.references.options import ReferenceOptions


class PatternOptions(Options):
    """A measured powder pattern."""

    pattern: Path | None = None
    """File of the pattern: .xy, .xye, .csv, .dat, .txt, .xrdml or .cif (pdCIF)."""
    wavelength: str | None = None
    """CuKa (both lines), CuKa1, MoKa, CoKa, FeKa, CrKa, AgKa, or a number in Å. Default: that of the file,
    else CuKa."""
    radiation: Literal["xray", "neutron"] = "xray"
    """What is scattered."""
    two_theta_min: float | None = None
    """Leave out smaller angles, degrees."""
    two_theta_max: float | None = None
    """Leave out larger angles, degrees."""


class SolveOptions(CellOptions):
    """Which crystals are tried for a pattern, and how many answers are given."""

    formula: str | None = same(
        CellOptions, "formula", description="Chemical formula, or several: TiO2,Ti2O3 says which one fits."
    )
    elements: str | None = same(
        Request,
        "elements",
        description="Elements of the sample, such as Fe,O, in place of a formula: the formulas of known "
        "crystals with these elements, or some of them, are tried.",
    )
    phases: Annotated[tuple[Path, ...], Flag(name="--phase", several=True)] = ()
    """CIFs of phases that the sample may have beside the crystal, such as impurities: those that the pattern
    shows are refined with it."""
    candidates: int = Field(default=150, ge=1, le=2000)
    """Crystals of each formula that are tried, at most; fewer where one fits well before. With --elements: of
    all formulas together."""
    answers: int = Field(default=5, ge=1)
    """Answers that are given, at most."""
    stop_early: Annotated[bool, Flag(negative=True)] = True
    """Stop where a crystal explains all but the noise; --no-stop-early tries all candidates."""


class SolveReferenceOptions(ReferenceOptions):
    """Where the candidates of a pattern come from."""

    crystals_from: Annotated[Literal["network", "references", "both"], Flag(name="--from")] = same(
        ReferenceOptions,
        "crystals_from",
        default="both",
        description="network: candidates are sampled; references: they are made of known crystals of "
        "the same proportions, by replacing elements; both: three quarters of known ones, which come first.",
    )
