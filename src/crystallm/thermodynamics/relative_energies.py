"""Energies relative to the elements and to the convex hull of known entries."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.errors import InputError
from crystallm.thermodynamics.formation import element_energies, formation_energy
from crystallm.thermodynamics.hull import Hull

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from pymatgen.core import Composition

_LOG = logging.getLogger(__name__)
COLUMNS = {"formation_energy": "float64", "e_above_hull": "float64"}
"""Columns with their pyarrow types, eV/atom."""


class RelativeEnergies:
    """Formation energies and energies above the hull."""

    def __init__(
        self,
        model: str,
        *,
        formation: bool,
        hull: str | None,
        device: str = "cpu",
        executor: Executor | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self._executor = executor
        self._formation = formation
        self._hull = None if hull is None else Hull(Path(hull))
        self._elements: dict[str, float] = {}
        self._relaxed_elements: set[str] = set()
        self._warned: set[str] = set()

    def prepare(self, compositions: Iterable[Composition]) -> None:
        """Compute the energies of all elements of some crystals, by relaxing their reference crystals."""
        if not self._formation:
            return
        symbols = {element.symbol for composition in compositions for element in composition.elements}
        if new := symbols - self._relaxed_elements:
            self._elements |= element_energies(new, self._model, device=self._device, executor=self._executor)
            self._relaxed_elements |= new

    def columns(self, composition: Composition, energy: float) -> dict[str, float | None]:
        """Return `formation_energy` and `e_above_hull`, None if not requested or not known.

        Args:
            energy: its energy, eV per atom.
        """
        self.prepare([composition])
        return {
            "formation_energy": formation_energy(composition, energy, self._elements)
            if self._formation
            else None,
            "e_above_hull": self._above(composition, energy),
        }

    def _above(self, composition: Composition, energy: float) -> float | None:
        """Return the energy above the hull; None if the entries lack an element."""
        if self._hull is None:
            return None
        try:
            return self._hull.above(composition, energy)
        except InputError as error:
            if str(error) not in self._warned:
                self._warned.add(str(error))
                _LOG.warning("no energy above the hull: %s", error)
            return None
