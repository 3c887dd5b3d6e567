"""Relax a crystal to a minimum of an energy model: its cell and atoms, or what its space group leaves free.

BFGS with a line search on the variables of `geometry.free_coordinates`. No step raises the energy. A
relaxation that diverges, ends with atoms on top of each other, or has a NaN energy, fails with the reason.
Does not depend on where crystals come from or are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.energy import protocol as models
from crystallm.energy.options import RelaxOptions as RelaxOptions  # noqa: PLC0414 - part of this interface
from crystallm.errors import CrystallmError, quiet_libraries
from crystallm.geometry import distances, free_coordinates
from crystallm.geometry.symmetry_search import find_symmetry
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats
    from crystallm.energy.protocol import EnergyModel

SYMPREC = 0.01
"""Tolerance of the symmetry that is kept, reported and printed, Å. Relaxed positions are more exact
than printed ones, and 0.1 Å, as elsewhere, would move them back."""
MAX_GROWTH = 8.0
"""Maximum ratio of volumes: a cell twice as long in each direction is another crystal, or none."""

STIFFNESS = 20.0
"""First guess of the second derivatives by the variables, eV/Å^2."""
MAX_MOVE, MAX_STRAIN = 0.2, 0.08
"""Limits of a step: displacement of an atom, Å, and component of the strain."""
MAX_TRIALS = 8
"""Energies on a line; after them the energy does not fall any more."""
SUFFICIENT = 1e-4
"""Share of the fall that the slope promises which a step must reach (Armijo)."""
ROUNDING = 2e-6
"""Differences of energies that float32 does not resolve, eV/atom; among them the force decides."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Result of a relaxation.

    Attributes:
        before: the structure as it was given.
        energy_before: of the first, eV per atom.
        energy: of the last one.
        fmax: the largest force left, eV/Å, as in `Options`.
        trajectory: (structure, eV per atom) of each step, including the first; empty unless requested.
        note: how the text of the structure was read, where that had to be decided.
    """

    before: Structure
    structure: Structure
    energy_before: float
    energy: float
    steps: int
    converged: bool
    fmax: float
    trajectory: tuple[tuple[Structure, float], ...] = ()
    note: str = ""

    def record(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            "before": conversion.to_json(self.before),
            "structure": conversion.to_json(self.structure),
            "energy_before": self.energy_before,
            "energy": self.energy,
            "steps": self.steps,
            "converged": self.converged,
            "fmax": self.fmax,
            "trajectory": [[conversion.to_json(structure), energy] for structure, energy in self.trajectory],
            "note": self.note,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Relaxed:
        """Return the result of a record."""
        structures = {name: conversion.from_json(record[name]) for name in ("before", "structure")}
        path = tuple((conversion.from_json(packed), energy) for packed, energy in record["trajectory"])
        return cls(**{**record, **structures, "trajectory": path})


def relax(
    structure: Structure,
    model: EnergyModel,
    options: RelaxOptions | None = None,
    *,
    bound: float = models.BOUND,
) -> Relaxed:
    """Relax one structure, in this process and without a limit of time.

    Args:
        structure: an ordered one; it stays as it is.
        bound: on |E|, eV per atom.

    Raises:
        CrystallmError: the structure is not ordered, runs away, ends with atoms less than 0.5 Å apart, has no
            finite energy; its symmetry is not found; the model lacks forces or stress.
        Exception: what the model raises.
    """
    options = RelaxOptions() if options is None else options
    if not structure.is_ordered:
        raise CrystallmError("partial occupancies cannot be relaxed")
    path: list[tuple[Structure, float]] = []
    with quiet_libraries():
        surface = _Surface(structure, model, bound, keep_symmetry=options.keep_symmetry)
        for steps, state in enumerate(_descend(surface, options.steps, options.fmax)):
            if not steps:
                energy_before = state.energy
            if options.trajectory:
                path.append((surface.structure(state.variables), state.energy))
        relaxed = surface.structure(state.variables)
        apart = distances.shortest(relaxed.lattice.matrix, relaxed.frac_coords)
        if apart < distances.CLOSEST:
            raise CrystallmError(f"the relaxed cell is not sensible: atoms are {apart:.2f} Å apart")
    return Relaxed(
        structure,
        relaxed,
        energy_before,
        state.energy,
        steps,
        state.force < options.fmax,
        state.force,
        tuple(path),
    )


@dataclass(frozen=True, slots=True)
class _Visited:
    """A point on the surface.

    Attributes:
        variables: (n,), Å.
        energy: eV per atom.
        gradient: of the energy of the primitive cell by the variables, eV/Å, (n,).
        force: the largest one, eV/Å, as in `Options`.
    """

    variables: Floats
    energy: float
    gradient: Floats
    force: float


class _Surface:
    """The energy of a crystal as a function of its free variables.

    Raises:
        CrystallmError: its symmetry is to be kept and is not found.
    """

    def __init__(
        self, structure: Structure, model: EnergyModel, bound: float, *, keep_symmetry: bool
    ) -> None:
        lattice, points = structure.lattice.matrix, structure.frac_coords
        if keep_symmetry:
            kinds = [site.specie.Z for site in structure]
            self.coordinates = free_coordinates.symmetric(lattice, points, kinds, SYMPREC)
        else:
            self.coordinates = free_coordinates.unconstrained(lattice, points)
        self.n_atoms = len(self.coordinates.points)
        self._species = [site.specie for site in structure]
        self._volume = abs(np.linalg.det(self.coordinates.lattice))
        self._model = model
        self._bound = bound

    def structure(self, variables: Floats) -> Structure:
        """Return the crystal in the cell that was given."""
        from pymatgen.core import Structure

        lattice, points = self.coordinates.given_cell(variables)
        return Structure(lattice, self._species, points)

    def evaluate(self, variables: Floats) -> _Visited:
        """Compute energy and gradient.

        Raises:
            CrystallmError: the cell runs away; the model has no forces or no stress, or returns NaN or values
                out of bounds.
        """
        from pymatgen.core import Structure

        lattice, points = self.coordinates.primitive_cell(variables)
        volume = abs(np.linalg.det(lattice))
        growth = volume / self._volume
        if not 1 / MAX_GROWTH < growth < MAX_GROWTH:
            raise CrystallmError(f"the cell runs away: {growth:.3g} times its volume")
        species = [self._species[atom] for atom in self.coordinates.atoms]
        (found,) = self._model.predict([Structure(lattice, species, points)], forces=True)
        if wrong := models.problem(found, self._bound):
            raise CrystallmError(wrong)
        if found.forces is None or found.stress is None:
            missing = "forces" if found.forces is None else "stress"
            raise CrystallmError(f"{self._model.name} gives no {missing}, which relaxation needs")
        forces, stress = self.coordinates.project(found.forces, found.stress)
        on_all = np.concatenate([forces, stress * volume / self.n_atoms])  # on atoms and cell, eV/Å
        return _Visited(
            variables,
            float(found.energy),
            self.coordinates.gradient(variables, forces, stress),
            float(np.linalg.norm(on_all, axis=1).max()),
        )


def _descend(surface: _Surface, max_steps: int, fmax: float) -> Iterator[_Visited]:
    """Yield the start and the state after each step of BFGS, with a line search, until no force exceeds fmax.

    Ends early where the energy falls no further.
    """
    state = surface.evaluate(np.zeros(surface.coordinates.n_variables))
    yield state
    inverse = np.eye(len(state.variables)) / STIFFNESS
    for _ in range(max_steps):
        if state.force < fmax:
            return
        step = -inverse @ state.gradient
        moved, strained = surface.coordinates.largest_move(step)
        step *= min(1.0, MAX_MOVE / max(moved, 1e-12), MAX_STRAIN / max(strained, 1e-12))
        reached = _search_line(surface, state, step)
        if reached is None:
            return
        inverse = _updated(inverse, reached, state)
        state = reached
        yield state


def _search_line(surface: _Surface, state: _Visited, step: Floats) -> _Visited | None:
    """Return the state after a step, shortened until the energy falls; None if it does not."""
    slope = float(state.gradient @ step)
    length = 1.0
    for _ in range(MAX_TRIALS):
        trial = surface.evaluate(state.variables + length * step)
        rise = (trial.energy - state.energy) * surface.n_atoms
        level = rise <= ROUNDING * surface.n_atoms and trial.force < state.force
        if level or rise <= SUFFICIENT * length * slope:
            return trial
        # The minimum of the cubic polynomial with the energies and slopes of both ends.
        end = float(trial.gradient @ step)
        a = slope + end - 3 * rise / length
        b = np.sqrt(max(a * a - slope * end, 0.0))
        share = 1 - (end + b - a) / (end - slope + 2 * b) if end - slope + 2 * b else 0.5
        length *= min(max(share, 0.1), 0.7)
    return None


def _updated(inverse: Floats, state: _Visited, before: _Visited) -> Floats:
    """Return the inverse Hessian of BFGS (Nocedal and Wright 2006, 6.17), damped as by Powell (1978)."""
    step, change = state.variables - before.variables, state.gradient - before.gradient
    # The step is along -H^-1 g, so that H step is along -g.
    expected = -float(step @ before.gradient)
    expected *= expected / float(before.gradient @ inverse @ before.gradient)
    hessian_step = before.gradient * (expected / float(step @ before.gradient))
    curvature = float(step @ change)
    if curvature < 0.2 * expected:
        change = hessian_step + (change - hessian_step) * (0.8 * expected / (expected - curvature))
        curvature = 0.2 * expected
    turned = inverse @ change
    both = np.outer(step, turned) / curvature
    factor = (1 + float(change @ turned) / curvature) / curvature
    return np.asarray(inverse + factor * np.outer(step, step) - both - both.T)


def to_cif(structure: Structure) -> str:
    """Return a CIF of a relaxed structure in the setting of its space group; in P1 if none is found."""
    from crystallm.sources import parsing

    try:
        return parsing.to_cif(structure, symprec=SYMPREC, digits=6)
    except Exception:  # noqa: BLE001 - spglib and pymatgen fail in many ways at crystals near a higher symmetry
        return parsing.to_cif(structure, digits=6)


def space_group(structure: Structure) -> tuple[str, int] | None:
    """Return symbol and number of the space group found within SYMPREC; None if there is none."""
    kinds = {species: kind for kind, species in enumerate(dict.fromkeys(site.species for site in structure))}
    symmetry = find_symmetry(
        structure.lattice.matrix,
        structure.frac_coords,
        [kinds[site.species] for site in structure],
        SYMPREC,
    )
    return None if symmetry is None else (str(symmetry.international), int(symmetry.number))
