"""ASE calculators as energy models, and energy models as ASE calculators. Imports ase: import it late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from crystallm.energy import protocol as models
from crystallm.energy.protocol import Prediction
from crystallm.errors import CrystallmError
from crystallm.structures.conversion import to_atoms, to_structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from crystallm.energy.protocol import EnergyModel


class AseModel:
    """An ASE calculator as an energy model: one crystal after another."""

    def __init__(self, calculator: Any, name: str) -> None:
        self.name = name
        self._calculator = calculator

    def predict(self, structures: Sequence[Structure], *, forces: bool = False) -> list[Prediction]:
        """Return the results of the calculator; see `EnergyModel`."""
        return [self._one(structure, forces) for structure in structures]

    def _one(self, structure: Structure, forces: bool) -> Prediction:
        atoms = to_atoms(structure)
        atoms.calc = self._calculator
        energy = float(atoms.get_potential_energy()) / len(atoms)
        if not forces:
            return Prediction(energy)
        return Prediction(energy, _offered(atoms.get_forces), _offered(lambda: atoms.get_stress(voigt=False)))


def _offered(ask: Any) -> Any:
    """Return a property of a calculator; None if it has none."""
    try:
        return np.array(ask(), dtype=np.float64)
    except (PropertyNotImplementedError, NotImplementedError):
        return None


def sevennet(device: str = "auto") -> AseModel:
    """SevenNet-0 (Park et al. 2024), with the weights of its package."""
    from sevenn.calculator import SevenNetCalculator

    return AseModel(SevenNetCalculator("7net-0", device=device), "sevennet")


class ModelCalculator(Calculator):  # type: ignore[misc] # ase is untyped
    """An energy model as an ASE calculator, which rejects invalid energies.

    Args:
        bound: on |E|, eV per atom.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, model: EnergyModel, bound: float) -> None:
        super().__init__()
        self._energy_model = model
        self._bound = bound

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Set the results for the current atoms.

        Raises:
            CrystallmError: the model has no forces or no stress, or returns NaN or values out of bounds.
        """
        super().calculate(atoms, properties, system_changes)
        (found,) = self._energy_model.predict([to_structure(self.atoms)], forces=True)
        if wrong := models.problem(found, self._bound):
            raise CrystallmError(wrong)
        if found.forces is None or found.stress is None:
            missing = "forces" if found.forces is None else "stress"
            raise CrystallmError(f"{self._energy_model.name} gives no {missing}, which relaxation needs")
        stress = found.stress
        voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]  # xx yy zz yz xz xy
        energy = found.energy * len(self.atoms)
        self.results = {"energy": energy, "free_energy": energy, "forces": found.forces, "stress": voigt}
