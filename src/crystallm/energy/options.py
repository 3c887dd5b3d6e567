"""Options of energies and relaxation, for all commands that compute them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from crystallm.options import CommonOptions, Flag, Options, same


class RelaxOptions(Options):
    """How to relax a crystal."""

    steps: int = Field(default=200, ge=0)
    """Maximum number of steps for a crystal."""
    fmax: float = Field(default=0.05, gt=0)
    """Stop when the largest force is below this, eV/Å. The force on the cell is the derivative by its strain
    over the number of atoms, as in ASE."""
    keep_symmetry: bool = False
    """Keep the space group of each crystal and relax only what it leaves free, which is faster; otherwise
    symmetry may change."""
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


class EnergyModelOptions(Options):
    """Which energy model to use, if any."""

    energy: str | None = None
    """Energy model: chgnet, sevennet, or module:factory of any ASE calculator."""
    relax: bool = False
    """Relax each crystal before its energy is computed."""


class PreRelaxOptions(EnergyModelOptions):
    """Which energy model to use for known or given crystals, which may be relaxed first."""

    steps: int = same(
        RelaxOptions,
        "steps",
        default=500,
        ge=1,
        description="With --relax: maximum number of steps for a crystal.",
    )

    @model_validator(mode="after")
    def _require_relax(self) -> PreRelaxOptions:
        if "steps" in self.model_fields_set and not self.relax:
            raise ValueError(f"steps = {self.steps} without relax: set both")
        return self

    @property
    def relaxation(self) -> RelaxOptions | None:
        """How the crystals are relaxed; None if they are not."""
        return RelaxOptions(steps=self.steps) if self.relax else None


class EnergyOptions(EnergyModelOptions, RelativeEnergyOptions):
    """Which energy model to use, and what else to derive from its energies."""

    @model_validator(mode="after")
    def _require_model(self) -> EnergyOptions:
        check_model(self, "relax", "formation_energy", "hull")
        return self


def check_model(options: EnergyModelOptions, *names: str) -> None:
    """Check that options that need an energy model are given with one.

    Raises:
        ValueError: one of the options of these names is set, and `energy` is not.
    """
    first = next((name for name in names if getattr(options, name)), None)
    if options.energy is None and first is not None:
        value = getattr(options, first)
        text = first if value is True else f"{first} = {value!r}"
        raise ValueError(f"{text} without energy: name a model, energy = 'chgnet' (--energy chgnet)")


class ChosenModelOptions(Options):
    """The energy model of commands that cannot do without one."""

    energy: Annotated[str, Flag(("--model",))] = same(EnergyModelOptions, "energy", default="chgnet")


class ServerOptions(ChosenModelOptions):
    """A server of energies for other programs."""

    address: str = "tcp://127.0.0.1:5555"
    """Address to listen at; tcp://*:5555 for other machines, too."""
    timeout: float = same(CommonOptions, "timeout")
