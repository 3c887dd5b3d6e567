"""Known phases beside the crystal of a pattern: scale, cell, and share of the mass.

The peaks of the crystal are taken off the pattern, and cell and scale of a phase are refined against the
rest; the phase that explains most of it is kept if it explains enough. Then the peaks of the phases are taken
off, and the crystal is refined against what is left. With scales s of |F|^2, masses m and volumes V of cells:

    share_p = s_p m_p V_p / sum_q s_q m_q V_q    (Hill and Howard, J. Appl. Cryst. 20, 467, 1987)

The function of worker processes takes and returns one JSON value. Does not depend on where phases come from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm.crystallography.space_groups import PARAMETERS
from crystallm.diffraction import fitting
from crystallm.diffraction.powder_model import PowderCrystal, ReflectionSet
from crystallm.diffraction.profile import ProfileParameters, Profiles
from crystallm.diffraction.radiation import Radiation
from crystallm.diffraction.refinement import Refinement
from crystallm.diffraction.reflections import volumes
from crystallm.errors import CrystallmError, InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystallm.crystallography.space_groups import Floats
    from crystallm.diffraction.pattern import PreparedPattern
    from crystallm.diffraction.refinement import Fit

MOST = 4
"""Phases beside a crystal, at most."""
STRETCHES = np.linspace(0.99, 1.01, 21)
"""Relative lengths of the cells from which one is refined."""
LEAST_GAIN, LEAST_OVERLAP = 0.02, 0.5
"""A phase is kept if it lowers the squared residuals by this share, and if this share of its peaks is
measured."""
STEPS = 15
"""Steps of the refinement of the crystal beside phases, at most."""


class Phase(NamedTuple):
    """A known phase: a name, and its crystal."""

    name: str
    crystal: PowderCrystal


class FittedPhase(NamedTuple):
    """A phase that a pattern has: its name, its refined crystal, and its share of the mass."""

    name: str
    crystal: PowderCrystal
    share: float


def read_phases(paths: Sequence[Path]) -> list[Phase]:
    """Return the phases of CIF files.

    Raises:
        InputError: there is no such file, or no crystal in it.
        CrystallmError: a file cannot be read.
    """
    phases = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise InputError(f"no phase {str(path)!r}: there is no such file") from None
        except OSError as error:
            raise CrystallmError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        phases.append(phase_of(path.stem, text))
    return phases


def phase_of(name: str, text: str) -> Phase:
    """Return the phase of a CIF. Raises InputError: there is no ordered crystal in it."""
    from crystallm.orbits.description import describe
    from crystallm.sources import parsing

    try:
        return Phase(name, PowderCrystal.of(describe(parsing.read(text).structure)))
    except TextError as error:
        raise InputError(f"phase {name[:60]!r}: {error}; give the CIF of an ordered crystal") from None


def fit_phases(task: Mapping[str, Any]) -> dict[str, Any]:
    """Refine a crystal together with those of the known phases that the pattern has.

    Args:
        task: `pattern`, `radiation`, `fit`, which `fitting.fit_coordinates` returned, and `phases`, a list of
            records of crystals.

    Returns:
        The fit, with `phases`: records with `index` in the list, `crystal`, `profile`, `displacement` and
        `scale`. Its Rwp is that of the whole pattern.
    """
    pattern, radiation = fitting.pattern_of(task["pattern"]), Radiation(**task["radiation"])
    main = dict(task["fit"])
    phases = [fitting.crystal_of(record) for record in task["phases"]]
    kept: dict[int, dict[str, Any]] = {}
    while len(kept) < min(MOST, len(phases)):
        rest = without(pattern, radiation, [main, *kept.values()])
        found = {i: _fit(rest, radiation, phases[i], main) for i in range(len(phases)) if i not in kept}
        best = min(found, key=lambda i: found[i].rwp)
        if not _is_there(rest, radiation, found[best]):
            break
        kept[best] = {"index": best, **fitting.fit_record(found[best], pattern, radiation, 0)}
        main = _refit(pattern, radiation, main, list(kept.values()))
    return main | {"phases": list(kept.values())}


def _refit(
    pattern: PreparedPattern, radiation: Radiation, main: dict[str, Any], phases: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the fit of a crystal beside phases."""
    rest = without(pattern, radiation, phases)
    fit = fitting.continued(main, rest, radiation, STEPS)
    residuals = rest.intensity - fit.calculated
    record = fitting.fit_record(fit, pattern, radiation, fit.crystal.n_free)
    rwp = float(np.sqrt(pattern.weights @ residuals**2))
    n_parameters = max(main["n_parameters"], record["n_parameters"]) + len(phases)
    return record | {"rwp": rwp, "n_parameters": n_parameters}


def peaks_of(record: Mapping[str, Any], pattern: PreparedPattern, radiation: Radiation) -> Floats:
    """Return the calculated peaks [n] of a fit on the grid of a pattern."""
    crystal = fitting.crystal_of(record["crystal"])
    found = ReflectionSet(crystal, radiation, float(pattern.two_theta[-1])).intensities(
        crystal, record["displacement"]
    )
    profile = ProfileParameters(**record["profile"])
    profiles = Profiles(pattern.two_theta, found.two_theta, profile, radiation)
    return np.asarray(record["scale"] * profiles.pattern(found.values))


def without(
    pattern: PreparedPattern, radiation: Radiation, fits: Sequence[Mapping[str, Any]]
) -> PreparedPattern:
    """Return a pattern without the peaks of some fits."""
    peaks = sum((peaks_of(fit, pattern, radiation) for fit in fits), np.zeros_like(pattern.intensity))
    return replace(pattern, intensity=pattern.intensity - peaks)


def mass_shares(fits: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the shares of the mass of some fits; see the module."""
    amounts = []
    for fit in fits:
        crystal = fitting.crystal_of(fit["crystal"])
        mass = float(crystal.structure().composition.weight)
        amounts.append(max(fit["scale"], 0.0) * mass * float(volumes(crystal.full_cell)))
    total = sum(amounts)
    return [amount / total if total else 0.0 for amount in amounts]


def _fit(rest: PreparedPattern, radiation: Radiation, crystal: PowderCrystal, main: Mapping[str, Any]) -> Fit:
    """Return the fit of a phase to what a crystal leaves."""
    refinement, profile = Refinement(rest, radiation), ProfileParameters(**main["profile"])
    reflections = ReflectionSet(crystal, radiation, float(rest.two_theta[-1]), 0.02)
    is_length = np.array([name in PARAMETERS[:3] for name in crystal.group.free_cell])
    starts = [
        crystal.with_values(cell=np.where(is_length, crystal.cell * stretch, crystal.cell))
        for stretch in STRETCHES
    ]
    fits = [refinement.run(start, profile, steps=0, reflections=reflections) for start in starts]
    best = min(fits, key=lambda fit: fit.rwp)
    return refinement.run(best.crystal, profile, steps=fitting.CELL_STEPS)


def _is_there(rest: PreparedPattern, radiation: Radiation, fit: Fit) -> bool:
    """Return whether a phase explains enough of what is left, and is measured itself."""
    nothing = Refinement(rest, radiation).linear(np.zeros_like(rest.intensity))[1]
    if fit.scale <= 0 or fit.rwp**2 > (1 - LEAST_GAIN) * float(nothing @ nothing):
        return False
    measured = np.clip(rest.intensity - fit.background, 0, None)
    return float(np.minimum(measured, fit.peaks).sum()) >= LEAST_OVERLAP * float(fit.peaks.sum())
