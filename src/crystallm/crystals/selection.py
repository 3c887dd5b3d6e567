"""What is kept of the samples of a request."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Ranking = Literal["agreement", "likelihood", "both", "energy"]

TRIES = 10
"""Crystals written for each valid one that is asked for, at most, where no other bound is given."""


class SelectionOptions(BaseModel):
    """What is kept of the crystals that are written, and in which order. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    valid: bool = False
    """Write on until as many crystals as were asked for are valid."""
    max_tries: int | None = Field(default=None, ge=1)
    """Crystals written for a request, to find its valid ones, at most; None: ten for each."""
    rank: Ranking | None = None
    """Fold equal crystals and rank them; None: leave them in the order of their samples."""
    best: int | None = Field(default=None, ge=1)
    """Keep so many distinct crystals of a request, the best ones; None for all. Ranks by agreement if no
    ranking is named."""

    energy: str | None = None
    """Ask this energy model about the crystals (see `energy.model`); ranks by energy if nothing is named."""
    relax: bool = False
    """With energy: relax the crystals first, and tell the energy of what they have become."""
    formation: bool = False
    """With energy: tell formation energies, too; see `energy.formation`."""
    hull: str | None = None
    """With energy: tell how far crystals stand above the hull of the entries in this file; see
    `energy.hull`."""

    @model_validator(mode="after")
    def _fits_together(self) -> SelectionOptions:
        if self.energy is None and (self.relax or self.rank == "energy"):
            what = "relax" if self.relax else "rank = 'energy'"
            raise ValueError(f"{what} without energy: name a model, energy = 'chgnet' (--energy chgnet)")
        if self.energy is None and (self.formation or self.hull is not None):
            what = "formation" if self.formation else f"hull = {self.hull!r}"
            raise ValueError(f"{what} without energy: name a model, energy = 'chgnet' (--energy chgnet)")
        if self.max_tries is not None and not self.valid:
            raise ValueError(f"max_tries = {self.max_tries} without valid: ask for valid crystals too")
        return self

    @property
    def ranking(self) -> Ranking | None:
        """How to rank, None for not at all."""
        if self.rank is None and self.energy is not None:
            return "energy"
        return "agreement" if self.rank is None and self.best is not None else self.rank

    def tries(self, n: int) -> int:
        """Crystals that a request for n may take."""
        if not self.valid:
            return n
        return TRIES * n if self.max_tries is None else self.max_tries
