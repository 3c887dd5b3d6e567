"""Options of the runs over collections of crystals: evaluate, relax and hull."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crystallm.options import NOT_DECIDING


class EvaluationOptions(BaseModel):
    """How to evaluate a collection: its validity, and on request energies, stability and novelty."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    read_as: Literal["auto", "text"] = "auto"
    """`text`: check the CIF as printed, as the paper does; `auto`: the same for CIFs in the form of this
    package, while all others are symmetrized first."""
    energy: str | None = None
    """Compute energies with chgnet, sevennet, or module:factory for any ASE calculator."""
    relax: bool = False
    """With --energy: relax the crystals first, and report how far the atoms move."""
    steps: int = Field(default=500, ge=1)
    """With --relax: maximum number of steps for a crystal."""
    hull: str | None = None
    """With --energy: file of entries (CSV, JSONL, JSON: composition, energy_per_atom), for energies above
    their convex hull."""
    metastable_threshold: Annotated[float, NOT_DECIDING] = Field(default=0.1, ge=0, allow_inf_nan=False)
    """With --hull: crystals up to this energy above the hull are metastable, eV/atom."""
    known: tuple[str, ...] = ()
    """Folders or files of known crystals, to report novelty; with --hull also S.U.N."""

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluationOptions:
        for name, owner in (("relax", "energy"), ("steps", "relax"), ("hull", "energy")):
            if name in self.model_fields_set and getattr(self, name) and not getattr(self, owner):
                raise ValueError(f"--{name} without --{owner}: give --{owner}, too (see --help)")
        if "metastable_threshold" in self.model_fields_set and self.hull is None:
            raise ValueError("--metastable-threshold without --hull: give --hull, too (see --help)")
        return self

    @property
    def compares(self) -> bool:
        """Whether energies, uniqueness or novelty are requested besides validity."""
        return self.energy is not None or bool(self.known)


class HullOptions(BaseModel):
    """How the energies of known crystals are computed, and of which."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    energy: str = "chgnet"
    """Energy model: chgnet, sevennet, or module:factory for any ASE calculator."""
    relax: bool = False
    """Relax the crystals first, as evaluate --relax does with others."""
    steps: int = Field(default=500, ge=1)
    """With --relax: maximum number of steps for a crystal."""
    chemical_systems: str | None = None
    """Folder or file of crystals: keep only their chemical systems, and those below them."""

    @model_validator(mode="after")
    def _fits_together(self) -> HullOptions:
        if "steps" in self.model_fields_set and not self.relax:
            raise ValueError("--steps without --relax: give --relax, too (see --help)")
        return self


class RelaxCollectionOptions(BaseModel):
    """The energy model that relaxes a collection, and what else is computed for its crystals."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = "chgnet"
    """Energy model: chgnet, sevennet, or module:factory for any ASE calculator."""
    formation_energy: bool = False
    """Compute formation energies, eV/atom, from the elements by the same energy model."""
    hull: str | None = None
    """File of entries (CSV, JSONL, JSON: composition, energy_per_atom), for energies above their convex
    hull."""
    best: int | None = Field(default=None, ge=1)
    """Cluster equal crystals and keep at most this number of each formula, lowest energy first."""
    timeout: Annotated[float, NOT_DECIDING] = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Time limit for one crystal, s."""
