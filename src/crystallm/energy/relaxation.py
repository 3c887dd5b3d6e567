"""Relax a crystal to the nearest minimum of an energy model, cell and atoms, with ASE.

FIRE (Bitzek et al. 2006) on the atoms and the logarithm of the deformation (ASE's FrechetCellFilter). A
relaxation that diverges, ends with atoms on top of each other, or has a NaN energy, fails with the reason.
Does not depend on where crystals come from or are stored.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.energy import protocol as models
from crystallm.energy.options import RelaxOptions as RelaxOptions  # noqa: PLC0414 - part of this interface
from crystallm.errors import CrystallmError, install, quiet_libraries
from crystallm.geometry import distances
from crystallm.geometry.symmetry_search import find_symmetry
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pymatgen.core import Structure

    from crystallm.energy.protocol import EnergyModel

SYMPREC = 0.01
"""Tolerance of the symmetry that is kept, reported and printed, Å. Relaxed positions are more exact
than printed ones, and 0.1 Å, as elsewhere, would move them back."""
MAX_GROWTH = 8.0
"""Maximum ratio of volumes: a cell twice as long in each direction is another crystal, or none."""

_SPGLIB = "SPGLIB_OLD_ERROR_HANDLING"


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
        CrystallmError: ase is not installed; the structure is not ordered, runs away, ends with atoms less
            than 0.5 Å apart, has no finite energy; its symmetry is not found; the model lacks forces or
            stress.
        Exception: what the model raises.
    """
    options = RelaxOptions() if options is None else options
    if not structure.is_ordered:
        raise CrystallmError("partial occupancies cannot be relaxed")
    try:
        from ase.filters import FrechetCellFilter
        from ase.optimize import FIRE
    except ImportError:
        raise CrystallmError(f"relaxation needs ase: {install('energy')}") from None
    import numpy as np

    from crystallm.energy.ase_adapter import ModelCalculator
    from crystallm.structures.conversion import to_atoms, to_structure

    with quiet_libraries():
        atoms = to_atoms(structure)
        if options.keep_symmetry:
            _keep_symmetry(atoms)
        atoms.calc = ModelCalculator(model, bound)
        volume, n = atoms.get_volume(), len(atoms)
        path: list[tuple[Structure, float]] = []
        energies: list[float] = []

        def look() -> None:
            """Called before the first step and after each."""
            growth = atoms.get_volume() / volume
            if not 1 / MAX_GROWTH < growth < MAX_GROWTH:
                raise CrystallmError(f"the cell runs away: {growth:.3g} times its volume")
            energies.append(float(atoms.get_potential_energy()) / n)
            if options.trajectory:
                path.append((to_structure(atoms), energies[-1]))

        filtered = FrechetCellFilter(atoms)
        with FIRE(filtered, logfile=None) as search:
            search.attach(look)
            search.run(fmax=options.fmax, steps=options.steps)
            left = float(np.linalg.norm(filtered.get_forces(), axis=1).max())
            relaxed = to_structure(atoms)
            apart = distances.shortest(relaxed.lattice.matrix, relaxed.frac_coords)
            if apart < distances.CLOSEST:
                raise CrystallmError(f"the relaxed cell is not sensible: atoms are {apart:.2f} Å apart")
            return Relaxed(
                structure,
                relaxed,
                energies[0],
                energies[-1],
                search.nsteps,
                left < options.fmax,
                left,
                tuple(path),
            )


@contextlib.contextmanager
def _spglib_as_it_was() -> Iterator[None]:
    """Undo what ASE 3.29 sets in the environment, after which spglib raises if it finds no symmetry."""
    before = os.environ.get(_SPGLIB)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SPGLIB, None)


def _keep_symmetry(atoms: Any) -> None:
    """Symmetrize atoms within SYMPREC, and constrain them to this symmetry."""
    from ase.constraints import FixSymmetry
    from ase.spacegroup.symmetrize import refine_symmetry

    try:
        with _spglib_as_it_was():
            refine_symmetry(atoms, SYMPREC)
            atoms.set_constraint(FixSymmetry(atoms, SYMPREC))
    except Exception as error:
        raise CrystallmError(f"its symmetry cannot be kept: {type(error).__name__}: {error}") from error


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
