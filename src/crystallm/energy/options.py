"""Options of energies, for all commands that compute them."""

from __future__ import annotations

from pydantic import model_validator

from crystallm.options import Options


class RelativeEnergyOptions(Options):
    """What to derive from energies."""

    formation_energy: bool = False
    """Report formation energies, eV/atom, from the elements by the same energy model."""
    hull: str | None = None
    """File of entries (CSV, JSONL, JSON: composition, energy_per_atom): report energies above their hull."""


class EnergyOptions(RelativeEnergyOptions):
    """Which energy model to use, and what to derive from its energies."""

    energy: str | None = None
    """Energy model: chgnet, sevennet, or module:factory of any ASE calculator."""
    relax: bool = False
    """Relax each crystal first, its symmetry kept."""

    @model_validator(mode="after")
    def _require_model(self) -> EnergyOptions:
        given = [
            text
            for text, set_ in (
                ("relax", self.relax),
                ("formation_energy", self.formation_energy),
                (f"hull = {self.hull!r}", self.hull is not None),
            )
            if set_
        ]
        if self.energy is None and given:
            raise ValueError(f"{given[0]} without energy: name a model, energy = 'chgnet' (--energy chgnet)")
        return self
