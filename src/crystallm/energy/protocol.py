"""What an energy model is, and what makes an energy valid."""

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
"""|E| in eV per atom beyond which an energy is no energy. Tungsten's -13 (PBE, Materials Project, mp-91) is
about the lowest that is real; what a model says of atoms on top of each other is not bounded by anything."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one crystal.

    Attributes:
        energy: eV per atom.
        forces: on each atom, -dE/dx, eV/Å, (n_atoms, 3); None where the model has none or was not asked.
        stress: of the cell, (1/V) dE/de for the symmetric strain e of the rows of the lattice,
            eV/Å^3, (3, 3); negative where the cell wants to grow. None likewise.
    """

    energy: float
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None


class EnergyModel(Protocol):
    """A model of the energy of crystals; `check` looks whether an object is one."""

    @property
    def name(self) -> str:
        """Of the model, for a person."""

    def predict(self, structures: Sequence[Structure], *, forces: bool = False) -> list[Prediction]:
        """What the model says of crystals.

        Args:
            structures: ordered ones, which stay as they are; may be none.
            forces: whether forces and stress are wanted too, where the model has them.

        Returns:
            A prediction a structure, in their order. Each is what it would be without the others.

        Raises:
            Exception: any, if the model can't take one of them: whoever needs the others asks again.
        """


def problem(prediction: Prediction, bound: float = BOUND) -> str:
    """What is wrong with the numbers of a prediction, in a few words; "" for nothing.

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
