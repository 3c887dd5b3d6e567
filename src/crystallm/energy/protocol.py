"""The protocol of energy models, and valid energies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

BOUND = 100.0
"""Maximum |E| of a valid energy, eV/atom. Tungsten's -13 (PBE, Materials Project, mp-91) is about the
lowest real one; energies of overlapping atoms have no bound."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction of a model for one crystal.

    Attributes:
        energy: eV per atom.
        forces: on each atom, -dE/dx, eV/Å, (n_atoms, 3); None if there are none, or not requested.
        stress: of the cell, (1/V) dE/de for the symmetric strain e of the rows of the lattice,
            eV/Å^3, (3, 3); negative if the cell tends to grow. None likewise.
    """

    energy: float
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None


class EnergyModel(Protocol):
    """A model of the energy of crystals; `conformance.check` checks whether an object is one."""

    @property
    def name(self) -> str:
        """Name of the model, for messages."""

    def predict(self, structures: Sequence[Structure], *, forces: bool = False) -> list[Prediction]:
        """Predict energies of crystals.

        Args:
            structures: ordered ones, which stay as they are; may be none.
            forces: whether to return forces and stress as well, if the model has them.

        Returns:
            One prediction per structure, in their order; none depends on the other structures.

        Raises:
            Exception: any, if the model fails for one of them; callers then repeat the others.
        """


def problem(prediction: Prediction, bound: float = BOUND) -> str:
    """Return what is wrong with the numbers of a prediction; "" for nothing.

    Args:
        prediction: of a model.
        bound: on |E|, eV per atom.
    """
    energy = float(prediction.energy)
    if not math.isfinite(energy):
        return f"the energy is {energy}"
    if abs(energy) > bound:
        return f"the energy is {energy:.4g} eV/atom, out of bounds (±{bound:g})"
    for name, values in (("forces", prediction.forces), ("stress", prediction.stress)):
        if values is not None and not all(map(math.isfinite, values.ravel().tolist())):
            return f"the {name} are not all numbers"
    return ""
