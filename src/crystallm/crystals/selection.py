"""Which of the sampled crystals of a request are kept, and in which order."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from crystallm.energy.options import EnergyOptions

Ranking = Literal["agreement", "likelihood", "combined", "energy"]
ATTEMPTS = 10
"""Samples drawn for each plausible crystal requested, at most, where no other limit is given."""


class SelectionOptions(EnergyOptions):
    """Which sampled crystals to keep, in which order, and the energies to compute for them."""

    only_valid: bool = False
    """Keep sampling until n crystals are plausible (valid, with the distances and volume of known crystals),
    and keep only those."""
    max_attempts: int | None = Field(default=None, ge=1)
    """With --only-valid: samples of a request, at most; none: 10 n."""
    rank: Ranking | None = None
    """Cluster equal crystals and put the best first; with --energy: by energy."""
    best: int | None = Field(default=None, ge=1)
    """Keep only the best crystals, at most this number per request; ranks by agreement."""

    @model_validator(mode="after")
    def _check_combination(self) -> SelectionOptions:
        if self.energy is None and self.rank == "energy":
            raise ValueError(
                "rank = 'energy' without energy: name a model, energy = 'chgnet' (--energy chgnet)"
            )
        if self.max_attempts is not None and not self.only_valid:
            raise ValueError(f"max_attempts = {self.max_attempts} without only_valid: set both")
        return self

    @property
    def ranking(self) -> Ranking | None:
        """How to rank; None: keep the order of the samples."""
        if self.rank is None and self.energy is not None:
            return "energy"
        return "agreement" if self.rank is None and self.best is not None else self.rank

    def attempts(self, n: int) -> int:
        """Return how many samples a request for n crystals may take."""
        if not self.only_valid:
            return n
        return ATTEMPTS * n if self.max_attempts is None else self.max_attempts
