"""Options of energies and relaxation, for all commands that compute them."""

from __future__ import annotations

from pydantic import Field, model_validator

from crystallm.options import Options


class RelaxOptions(Options):
    """How to relax a crystal."""

    steps: int = Field(default=200, ge=0)
    """Maximum number of steps for a crystal."""
    fmax: float = Field(default=0.05, gt=0)
    """Stop when the largest force is below this, eV/Å. The force on the cell is the derivative by its strain
    over the number of atoms, as in ASE."""
    keep_symmetry: bool = False
    """Keep the space group of each crystal (ASE's FixSymmetry); otherwise symmetry may change."""
    trajectory: bool = False
    """Keep the structures of all steps, as extended XYZ in trajectories/."""


class HullFileOptions(Options):
    """The convex hull above which energies are reported."""

    hull: str | None = None
    """File of entries (CSV, JSONL, JSON: composition, energy_per_atom): report energies above their hull."""


class RelativeEnergyOptions(HullFileOptions):
    """Energies relative to those of other crystals."""

    formation_energy: bool = False
    """Report formation energies, eV/atom, from the elements by the same energy model."""


class EnergyModelOptions(HullFileOptions):
    """Which energy model to use, if any."""

    energy: str | None = None
    """Energy model: chgnet, sevennet, or module:factory of any ASE calculator."""
    relax: bool = False
    """Relax each crystal before its energy is computed."""

    @model_validator(mode="after")
    def _require_model(self) -> EnergyModelOptions:
        given = {
            "relax": self.relax,
            "formation_energy": getattr(self, "formation_energy", False),
            f"hull = {self.hull!r}": self.hull is not None,
        }
        first = next((text for text, is_set in given.items() if is_set), None)
        if self.energy is None and first is not None:
            raise ValueError(f"{first} without energy: name a model, energy = 'chgnet' (--energy chgnet)")
        return self


class EnergyOptions(EnergyModelOptions, RelativeEnergyOptions):
    """Which energy model to use, and what else to derive from its energies."""


class ServerOptions(Options):
    """A server of energies for other programs."""

    model: str = "chgnet"
    """Energy model: chgnet, sevennet, or module:factory of any ASE calculator."""
    address: str = "tcp://127.0.0.1:5555"
    """Address to listen at; tcp://*:5555 for other machines, too."""
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Time limit for one crystal, s."""
