"""Validity and energies of many crystals."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from crystallm.errors import TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    from crystallm.crystals.crystal import Crystal
    from crystallm.energy.options import EnergyOptions

CHECKS_PER_WORKER = 32
"""Crystals for each process that checks validity."""
CHECKED_HERE = 4
"""Crystals, all made of known ones, that this process checks, at most."""
ENERGIES_PER_WORKER = 8
"""Crystals for each process with an energy model."""


def validate(crystals: Sequence[Crystal], executor: Executor | None = None) -> None:
    """Set the validity of crystals, checked in killable worker processes; a few of known ones in this one.

    A process takes half a second to start, and what is made of a known crystal is not pathological.
    """
    from crystallm.validity import checks

    known = all(crystal.source is not None and crystal.source.relative is not None for crystal in crystals)
    if known and len(crystals) <= CHECKED_HERE:
        for crystal in crystals:
            crystal.set_validity(checks.check(crystal.checked_text))
        return
    # One process per core, but few for few crystals: each takes seconds to start.
    workers = max(1, min(os.cpu_count() or 1, len(crystals) // CHECKS_PER_WORKER))
    results = checks.check_many(
        [crystal.checked_text for crystal in crystals], workers=workers, executor=executor
    )
    for crystal, validity in zip(crystals, results, strict=True):
        crystal.set_validity(validity)


def add_energies(
    crystals: Sequence[Crystal],
    options: EnergyOptions,
    *,
    device: str = "auto",
    executor: Executor | None = None,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Compute energies, and what is derived from them, as the options say; nothing without an energy model.

    Args:
        crystals: validated before.
        executor: where to work; None opens processes for this call.
        on_done: as for `compute_energies`.

    Raises:
        InputError, CrystallmError: the model or a file cannot be loaded.
    """
    if options.energy is None:
        return
    compute_energies(
        crystals, options.energy, relax=options.relax, device=device, executor=executor, on_done=on_done
    )
    add_relative_energies(
        crystals,
        options.energy,
        formation=options.formation_energy,
        hull=options.hull,
        device=device,
        executor=executor,
    )


def compute_energies(
    crystals: Sequence[Crystal],
    model: str,
    *,
    relax: bool = False,
    device: str = "auto",
    executor: Executor | None = None,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Set `energy` of crystals, or `energy_reason`, and `relaxed` if requested, in killable worker processes.

    Broken crystals and those without a sensible cell get no energy: models take minutes for pathological
    cells. Relaxation keeps the space group.

    Args:
        crystals: validated before.
        model: by name, see `energy.registry`.
        relax: whether to relax each crystal first; the energy is then that of the relaxed structure.
        device: of the model; `auto`: a GPU if there is one.
        executor: where to work; None opens processes for this call.
        on_done: called after each relaxation with the number of those done.

    Raises:
        InputError, CrystallmError: there is no such model, or it cannot be loaded.
    """
    from crystallm.energy import calculations, relaxation
    from crystallm.execution.devices import energy_device
    from crystallm.execution.tasks import Failure

    tasks: list[tuple[Crystal, Structure]] = []
    for crystal in crystals:
        if (structure := structure_of(crystal)) is None:
            crystal.energy_reason = "no crystal"
        elif not crystal.validity.sensible:
            crystal.energy_reason = "no sensible cell"
        else:
            tasks.append((crystal, structure))
    device = energy_device(device)
    n_workers = min(os.cpu_count() or 1, max(1, len(tasks) // ENERGIES_PER_WORKER)) if device == "cpu" else 1
    structures = [structure for _, structure in tasks]
    if relax:
        options = relaxation.RelaxOptions(keep_symmetry=True)
        results = calculations.relax_all(
            structures,
            model,
            options,
            device=device,
            n_workers=n_workers,
            executor=executor,
            on_done=on_done,
        )
        for (crystal, _), result in zip(tasks, results, strict=True):
            if isinstance(result, Failure):
                crystal.energy_reason = result.reason
            else:
                crystal.energy, crystal.relaxed = result.energy, result.structure
        return
    energies = calculations.score(structures, model, device=device, workers=n_workers, executor=executor)
    for (crystal, _), energy in zip(tasks, energies, strict=True):
        if isinstance(energy, Failure):
            crystal.energy_reason = energy.reason
        else:
            crystal.energy = energy


def add_relative_energies(
    crystals: Sequence[Crystal],
    model: str,
    *,
    formation: bool,
    hull: str | None,
    device: str = "auto",
    executor: Executor | None = None,
) -> None:
    """Set `formation_energy` and `e_above_hull` of crystals that have energies, if requested.

    Args:
        crystals: with energies.
        model: by name, see `energy.registry`.
        formation: whether to set formation energies.
        hull: file of entries, see `thermodynamics.hull`; None: no energies above the hull.
        device: of the model.
        executor: where to relax the elements; None opens processes for this call.

    Raises:
        InputError, CrystallmError: a file cannot be read.
    """
    if not (formation or hull is not None):
        return
    from crystallm.execution.devices import energy_device
    from crystallm.thermodynamics.relative_energies import RelativeEnergies

    device = energy_device(device)
    relative_energies = RelativeEnergies(
        model, formation=formation, hull=hull, device=device, executor=executor
    )
    with_energy = [
        (crystal, crystal.energy, structure.composition)
        for crystal in crystals
        if crystal.energy is not None and (structure := structure_of(crystal)) is not None
    ]
    relative_energies.prepare(composition for _, _, composition in with_energy)
    for crystal, energy, composition in with_energy:
        relative = relative_energies.columns(composition, energy)
        crystal.formation_energy, crystal.e_above_hull = (
            relative["formation_energy"],
            relative["e_above_hull"],
        )


def missing_energies(found: Iterable[tuple[float | None, str | None]]) -> str:
    """Return a line on the crystals that have no energy, with the most frequent reason; "" if all have one.

    Args:
        found: energy, eV/atom, and why there is none, of each crystal; both None where none was
            requested.
    """
    asked = [(energy, reason) for energy, reason in found if energy is not None or reason]
    reasons = Counter(reason for energy, reason in asked if energy is None)
    if not reasons:
        return ""
    (reason, times), *others = reasons.most_common()
    said = f"{reasons.total()} of {len(asked)} have no energy: {reason}"
    return said + (f" ({times} times; other reasons: {len(others)})" if others else "")


def structure_of(crystal: Crystal) -> Structure | None:
    """Return the structure of a crystal, or None where its text cannot be read."""
    try:
        return crystal.structure
    except TextError:
        return None
