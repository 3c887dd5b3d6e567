"""What a search minimises: a sum of energy, density, misfit to a powder pattern, and functions of yours.

    energy             eV per atom, of the energy model
    density            minus the density, g/cm^3, so that dense crystals come first
    pattern            Rwp of the crystal with its cell refined, from 0 to 1; see `diffraction.likeness`
    module:function    a function from a list of structures to a number for each, or an object with such a
                       method `score`; smaller is better

`energy=1 density=0.1` is energy minus a tenth of the density. Does not depend on how crystals are sampled.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from crystallm.errors import InputError, describe
from crystallm.options import import_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from crystallm.diffraction.options import PatternOptions

ENERGY = "energy"
NAMES = (ENERGY, "density", "pattern")


class Objective(Protocol):
    """What a search minimises, beside the energy."""

    def score(self, structures: Sequence[Structure]) -> Sequence[float]:
        """Return a number for each structure, smaller for better ones; NaN for none."""


class Term(NamedTuple):
    """A part of the sum: a name of the module, and its weight."""

    name: str
    weight: float


def parse_terms(texts: Sequence[str]) -> tuple[Term, ...]:
    """Return the terms of `energy`, `density=0.1` or `module:function=2`.

    Raises:
        InputError: an unknown name, a weight that is no number, or a name twice.
    """
    terms = []
    for text in texts:
        name, _, weight = text.partition("=")
        name = name.strip()
        if name not in NAMES and ":" not in name:
            raise InputError(f"objective = {text[:60]!r}: there are {', '.join(NAMES)} and module:function")
        try:
            number = float(weight or 1.0)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number == 0:
            raise InputError(f"objective = {text[:60]!r}: a weight is a number, such as {name}=0.5")
        terms.append(Term(name, number))
    names = [term.name for term in terms]
    if len(set(names)) < len(names) or not names:
        raise InputError(f"objective = {' '.join(texts)!r}: name each objective once")
    return tuple(terms)


class Density:
    """Minus the density, g/cm^3."""

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Return minus the densities."""
        return [-float(structure.density) for structure in structures]


class PatternMisfit:
    """Rwp of crystals against a powder pattern, with their cells refined.

    Raises:
        InputError: no pattern in the file, or an unknown wavelength.
        CrystallmError: no peak in the pattern.
    """

    def __init__(self, options: PatternOptions) -> None:
        from crystallm.diffraction import fitting
        from crystallm.diffraction.pattern import prepare
        from crystallm.diffraction.solution.candidates import open_pattern

        pattern, radiation = open_pattern(options)
        self._task = {
            "pattern": fitting.pattern_record(prepare(pattern)),
            "radiation": fitting.radiation_record(radiation),
            "seed": 0,
        }

    def score(self, structures: Sequence[Structure]) -> list[float]:
        """Return Rwp; raises TextError where a structure has no symmetry."""
        from crystallm.diffraction import fitting
        from crystallm.diffraction.powder_model import PowderCrystal
        from crystallm.orbits.description import describe

        records = [fitting.crystal_record(PowderCrystal.of(describe(structure))) for structure in structures]
        return [float(fitting.fit_cell(self._task | {"crystal": record})["rwp"]) for record in records]


class _Function:
    """A function as an objective."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def score(self, structures: Sequence[Structure]) -> Sequence[float]:
        """Return the values of the function."""
        values: Sequence[float] = self._function(structures)
        return values


def load_objective(name: str, pattern: PatternOptions) -> Objective:
    """Return an objective by its name; see the module.

    Raises:
        InputError: no such module or function, or no pattern for `pattern`.
        CrystallmError: no peak in the pattern.
    """
    if name == "density":
        return Density()
    if name == "pattern":
        if pattern.pattern is None:
            raise InputError("objective = 'pattern' without a pattern: name its file with --pattern")
        return PatternMisfit(pattern)
    found = import_object(name, "objective")
    made = found() if isinstance(found, type) else found
    if hasattr(made, "score"):
        objective: Objective = made
        return objective
    if not callable(made):
        raise InputError(f"objective = {name!r}: neither a function nor an object with a method score")
    return _Function(made)


class WeightedSum:
    """The sum that a search minimises.

    Args:
        texts: as for `parse_terms`.
        pattern: the pattern of `pattern`.

    Raises:
        InputError, CrystallmError: as `parse_terms` and `load_objective`.
    """

    def __init__(self, texts: Sequence[str], pattern: PatternOptions) -> None:
        self.terms = parse_terms(texts)
        self._others = [
            (term.weight, load_objective(term.name, pattern)) for term in self.terms if term.name != ENERGY
        ]

    @property
    def energy_weight(self) -> float:
        """Weight of the energy; 0 if it is not part of the sum."""
        return next((term.weight for term in self.terms if term.name == ENERGY), 0.0)

    def value(self, structure: Structure, energy: float | None) -> float | str:
        """Return the sum for a structure, or why it has none.

        Args:
            energy: eV per atom; not used if the energy is not part of the sum.
        """
        total = self.energy_weight * energy if energy is not None and self.energy_weight else 0.0
        for weight, objective in self._others:
            try:
                (found,) = objective.score([structure])
            except Exception as error:  # noqa: BLE001 - this crystal has no value
                return describe(error)
            if not math.isfinite(float(found)):
                return f"the objective is {found}"
            total += weight * float(found)
        return total
