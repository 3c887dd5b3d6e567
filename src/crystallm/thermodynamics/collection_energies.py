"""Energies of the crystals of a collection, as written or relaxed, and the RMSD of relaxing.

The distance is MatterGen's (Zeni et al., Nature 639, 624, 2025; its `compute_rmsd_angstrom`). With r the
distance that `StructureMatcher(ltol=0.5, stol=0.5, angle_tol=10, scale=False, attempt_supercell=True)` finds
between the crystal as written and as relaxed, n their number of atoms, and V the volume of the cell whose six
parameters are the means of theirs,

    RMSD = r (V / n)^(1/3)        Å, r = 0.5 where they do not match

so that a structure that falls apart does not lower a mean. It measures how atoms move within the cell: a
crystal that merely grows has RMSD 0. A crystal without an energy has the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.energy import calculations, relaxation
from crystallm.errors import CrystallmError, quiet_libraries
from crystallm.execution.mapping import run_tasks
from crystallm.execution.tasks import Failure
from crystallm.sources import parsing
from crystallm.structures import comparison, conversion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

BLOCK = 50
"""Crystals that are computed between two writes: relaxing one takes seconds to minutes."""
STEPS = 500
"""Maximum number of steps of a relaxation, as MatterGen's."""
NO_MATCH = comparison.RELAXED.position
"""r of structures that do not match."""


@dataclass(frozen=True, slots=True)
class EnergyResult:
    """A crystal and its energy.

    Attributes:
        structure: whose energy was computed, relaxed or not; None if it has no energy.
        energy: eV per atom; None likewise.
        energy_before: of the crystal as written, if it was relaxed.
        converged: whether the relaxation converged; None if it was not relaxed.
        rmsd: Å, see the module; None if it was not relaxed, or not compared in time.
        reason: why it has no energy; "" if it has one.
    """

    structure: Structure | None = None
    energy: float | None = None
    energy_before: float | None = None
    converged: bool | None = None
    rmsd: float | None = None
    reason: str = ""


def collection_energies(
    texts: Sequence[str],
    model: str,
    *,
    options: relaxation.RelaxOptions | None = None,
    device: str = "cpu",
    n_workers: int = 1,
    executor: Executor | None = None,
) -> list[EnergyResult]:
    """Compute the energies of crystals in worker processes.

    Args:
        texts: standard texts and CIFs of crystals that can be read; identical ones are computed once.
        options: how to relax; None: energies of the crystals as written.

    Raises:
        InputError, CrystallmError: there is no such model, or it cannot be loaded.
    """
    found: dict[str, EnergyResult] = {}
    structures: dict[str, Structure] = {}
    for text in dict.fromkeys(texts):
        try:
            structures[text] = parsing.structure(text)
        except CrystallmError as error:
            found[text] = EnergyResult(reason=f"no crystal: {error}")
    given = list(structures.values())
    n = max(1, min(n_workers, len(given)))
    if options is None:
        results = _as_written(given, model, device=device, n_workers=n, executor=executor)
    else:
        results = _relaxed(given, model, options, device=device, n_workers=n, executor=executor)
    found |= zip(structures, results, strict=True)
    return [found[text] for text in texts]


def _as_written(
    structures: Sequence[Structure], model: str, *, device: str, n_workers: int, executor: Executor | None
) -> list[EnergyResult]:
    energies = calculations.score(structures, model, device=device, workers=n_workers, executor=executor)
    return [
        EnergyResult(reason=energy.reason) if isinstance(energy, Failure) else EnergyResult(structure, energy)
        for structure, energy in zip(structures, energies, strict=True)
    ]


def _relaxed(
    structures: Sequence[Structure],
    model: str,
    options: relaxation.RelaxOptions,
    *,
    device: str,
    n_workers: int,
    executor: Executor | None,
) -> list[EnergyResult]:
    ends = calculations.relax_all(
        structures, model, options, device=device, n_workers=n_workers, executor=executor
    )
    pairs = [
        {"before": conversion.to_json(end.before), "after": conversion.to_json(end.structure)}
        for end in ends
        if not isinstance(end, Failure)
    ]
    moved = iter(run_tasks(executor, rmsd_record, pairs, workers=n_workers))
    found = []
    for end in ends:
        if isinstance(end, Failure):
            found.append(EnergyResult(reason=end.reason))
            continue
        far = next(moved)
        rmsd = None if isinstance(far, Failure) else float(far)
        found.append(EnergyResult(end.structure, end.energy, end.energy_before, end.converged, rmsd))
    return found


def rmsd_record(task: Mapping[str, Any]) -> float:
    """Return `rmsd` of the structures `before` and `after`; runs in a worker process."""
    return rmsd(conversion.from_json(task["before"]), conversion.from_json(task["after"]))


def rmsd(before: Structure, after: Structure) -> float:
    """Return how far relaxing moved the atoms of a crystal, Å; see the module.

    Args:
        before: ordered, as it was written.
    """
    from pymatgen.core import Lattice

    matcher: Any = comparison.matcher(comparison.RELAXED, scale=False, attempt_supercell=True)
    with quiet_libraries():
        found = matcher.get_rms_dist(before, after)
    both = (before.lattice.parameters, after.lattice.parameters)
    volume = Lattice.from_parameters(*((x + y) / 2 for x, y in zip(*both, strict=True))).volume  # Å^3
    distance = NO_MATCH if found is None else float(found[0])
    return float(distance * (volume / len(before)) ** (1 / 3))
