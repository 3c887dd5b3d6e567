"""Verdicts and energies of many crystals."""

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

JUDGED_BY_ONE = 32
"""Crystals for which a further judging process is started."""
WEIGHED_BY_ONE = 8
"""Crystals for which a further process with an energy model is started."""


def validate(crystals: Sequence[Crystal], executor: Executor | None = None) -> None:
    """Set the verdicts on crystals, found in processes that may be lost."""
    from crystallm.validity import checks

    # One process a core, but none for a handful: each takes seconds to start.
    workers = max(1, min(os.cpu_count() or 1, len(crystals) // JUDGED_BY_ONE))
    verdicts = checks.check_many([crystal.judged for crystal in crystals], workers=workers, executor=executor)
    for crystal, verdict in zip(crystals, verdicts, strict=True):
        crystal.judge(verdict)


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
    """Set `energy` of crystals, or `energy_reason`, and on wish `relaxed`, in processes that may be lost.

    What is no crystal, or has no sensible cell, is not asked about: models take minutes for freaks. The space
    group is kept as written.

    Args:
        relax: whether to relax each crystal first; the energy is then of what it has become.
        device: of the model; a GPU where `auto` finds one, else the CPU.
        executor: where to work; None opens processes for this call.
        on_done: called after each relaxation with the number of those done.

    Raises:
        InputError, CrystallmError: there is no such model, or it cannot be loaded.
    """
    from crystallm.energy import calculations, relaxation
    from crystallm.execution.devices import energy_device
    from crystallm.execution.tasks import Failure

    asked: list[tuple[Crystal, Structure]] = []
    for crystal in crystals:
        if (structure := structure_of(crystal)) is None:
            crystal.energy_reason = "no crystal"
        elif not crystal.validity.sensible:
            crystal.energy_reason = "no sensible cell"
        else:
            asked.append((crystal, structure))
    device = energy_device(device)
    n_workers = min(os.cpu_count() or 1, max(1, len(asked) // WEIGHED_BY_ONE)) if device == "cpu" else 1
    structures = [structure for _, structure in asked]
    if relax:
        options = relaxation.RelaxOptions(keep_symmetry=True)
        found = calculations.relax_all(
            structures,
            model,
            options,
            device=device,
            n_workers=n_workers,
            executor=executor,
            on_done=on_done,
        )
        for (crystal, _), one in zip(asked, found, strict=True):
            if isinstance(one, Failure):
                crystal.energy_reason = one.reason
            else:
                crystal.energy, crystal.relaxed = one.energy, one.structure
        return
    energies = calculations.score(structures, model, device=device, workers=n_workers, executor=executor)
    for (crystal, _), energy in zip(asked, energies, strict=True):
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
    """Set `formation_energy` and `e_above_hull` of crystals that have energies, where these are wanted.

    Raises:
        InputError, CrystallmError: a file that is none or cannot be read.
    """
    if not (formation or hull is not None):
        return
    from crystallm.execution.devices import energy_device
    from crystallm.thermodynamics.relative_energies import RelativeEnergies

    device = energy_device(device)
    relation = RelativeEnergies(model, formation=formation, hull=hull, device=device, executor=executor)
    weighed = [
        (crystal, crystal.energy, structure.composition)
        for crystal in crystals
        if crystal.energy is not None and (structure := structure_of(crystal)) is not None
    ]
    relation.prepare(composition for _, _, composition in weighed)
    for crystal, energy, composition in weighed:
        told = relation.told(composition, energy)
        crystal.formation_energy, crystal.e_above_hull = told["formation_energy"], told["e_above_hull"]


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
