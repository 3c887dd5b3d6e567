"""Predictors of properties: the values of structures.

density, volume_per_atom      computed from the structure
formation_energy_per_atom     by an energy model, relative to the elements (see `thermodynamics.formation`)
all others                    a function `module:function` of yours, from a list of structures to numbers
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from crystallm.datasets.properties import COMPUTED, computed
from crystallm.errors import InputError
from crystallm.options import import_object

if TYPE_CHECKING:
    from pymatgen.core import Structure

    Predictor = Callable[[Sequence[Structure]], Sequence[float | None]]

FORMATION = "formation_energy_per_atom"


def parse_predictors(texts: Sequence[str]) -> dict[str, str]:
    """Return the functions by the names of their properties, from `band_gap=my_module:gap`.

    Raises:
        InputError: a text of another form.
    """
    found = {}
    for text in texts:
        name, _, function = text.partition("=")
        if not name or ":" not in function:
            raise InputError(f"predictor = {text[:60]!r}: write band_gap=module:function")
        found[name] = function
    return found


def load_predictor(name: str, functions: dict[str, str], energy: str, *, workers: int = 1) -> Predictor:
    """Return what computes a property of structures; a structure without a value gets None.

    Args:
        name: of the property.
        functions: by property, `module:function`; they win.
        energy: name of the energy model.
        workers: processes that compute energies.

    Raises:
        InputError: there is nothing that computes it, or no such function or energy model.
    """
    if name in functions:
        function = import_object(functions[name], "predictor")
        if not callable(function):
            raise InputError(f"predictor = {functions[name]!r}: not a function")
        return lambda structures: [_finite(value) for value in function(structures)]
    if name in COMPUTED:
        return lambda structures: [computed(structure)[name] for structure in structures]
    if name == FORMATION:
        from crystallm.energy.registry import require

        require(energy)
        return lambda structures: formation_energies(structures, energy, workers)
    raise InputError(f"nothing computes {name!r}: name a function with --predictor {name}=module:function")


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def formation_energies(structures: Sequence[Structure], model: str, workers: int) -> list[float | None]:
    """Return formation energies, eV/atom; None where there is no energy."""
    from crystallm.energy import calculations
    from crystallm.execution.tasks import Failure
    from crystallm.thermodynamics.formation import element_energies, formation_energy

    energies = calculations.score(structures, model, workers=workers)
    symbols = {element.symbol for structure in structures for element in structure.composition.elements}
    elements = element_energies(symbols, model)
    return [
        None if isinstance(energy, Failure) else formation_energy(structure.composition, energy, elements)
        for structure, energy in zip(structures, energies, strict=True)
    ]
