"""Energies of the crystals of a library that have polymorphs in it, by an energy model.

With them, known crystals of a requested formula are ranked by stability (see `references.scorer`). Energies
are written to the library's file every few minutes, so that the same command goes on with a killed run.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystallm.energy import registry
from crystallm.energy.calculations import score
from crystallm.errors import InputError
from crystallm.execution.progress import Progress, no_progress
from crystallm.execution.tasks import Failure
from crystallm.references.library import Library
from crystallm.references.prototypes import primitive_structure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from numpy.typing import NDArray
    from pymatgen.core import Structure

MAX_ATOMS = 20
"""Largest primitive cell whose energy is computed: larger ones take most of the time and are seldom
requested."""
WRITE_SECONDS = 120.0
"""Time between two writes of the file."""
GROUP = 200
"""Number of crystals whose energies are computed between two looks at the clock."""


class EnergyReport(NamedTuple):
    """What became of the crystals of a library.

    Attributes:
        crystals: of the library.
        with_energy: those that have one now.
        computed: in this run.
        failed: without an energy, in this run.
    """

    crystals: int
    with_energy: int
    computed: int
    failed: int


def compute(
    path: Path,
    model: str = registry.DEFAULT,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> EnergyReport:
    """Compute the energies that a library lacks, smallest cells first, and write them into its file.

    Args:
        path: of the library.
        model: name of the energy model.
        workers: number of processes.

    Raises:
        InputError: no such library or energy model, or energies of another model in the library.
        CrystallmError: the file cannot be read or written.
    """
    registry.require(model)
    library = Library.read(path)
    if library.energy_model not in {None, model}:
        raise InputError(
            f"{str(path)!r} has energies by {library.energy_model}, with which those by {model} cannot be "
            f"compared: give --energy {library.energy_model}, or build the library anew"
        )
    energies = library.energies.copy()
    todo = rows_of_polymorphs(library)
    todo = todo[np.isnan(energies[todo])]
    n_failed, written = 0, time.monotonic()
    with progress("computing energies", len(todo)) as advance:
        for start in range(0, len(todo), GROUP):
            rows = todo[start : start + GROUP]
            found = score(_structures(library, rows), model, workers=workers, executor=executor)
            for row, energy in zip(rows, found, strict=True):
                if isinstance(energy, Failure):
                    n_failed += 1
                else:
                    energies[row] = round(energy, 3)
            advance(start + len(rows))
            if time.monotonic() - written > WRITE_SECONDS:
                library.with_energies(energies, model).write(path)
                written = time.monotonic()
    if np.isfinite(energies).any():
        library.with_energies(energies, model).write(path)
    return EnergyReport(len(library), int(np.isfinite(energies).sum()), len(todo) - n_failed, n_failed)


def rows_of_polymorphs(library: Library, max_atoms: int = MAX_ATOMS) -> NDArray[np.intp]:
    """Return the rows of crystals that share their formula with others, smallest primitive cells first.

    Args:
        library: of known crystals.
        max_atoms: largest number of atoms in the primitive cell.
    """
    formulas = [library.formula(row) for row in range(len(library))]
    times = Counter(formulas)
    sizes = [library.prototype(code).n_primitive for code in range(len(library.prototype_texts))]
    n_atoms = np.array(sizes, np.intp)[library.codes]
    shared = np.array([times[name] > 1 for name in formulas], bool)
    rows = np.flatnonzero(shared & (n_atoms <= max_atoms))
    return rows[np.argsort(n_atoms[rows], kind="stable")]


def _structures(library: Library, rows: Sequence[int] | NDArray[np.intp]) -> list[Structure]:
    """Return the primitive cells of rows."""
    members = [library.member(int(row)) for row in rows]
    return [primitive_structure(member, member.elements) for member in members]
