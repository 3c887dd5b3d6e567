"""ASE calculators as energy models. Imports ase: import it late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError

from crystallm.energy.protocol import Prediction
from crystallm.structures.conversion import to_atoms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure


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
