"""Fit one candidate to a pattern, in two steps: its cell, then its coordinates.

The functions take and return one JSON value each, so that candidates can be fitted in worker processes. Does
not depend on where candidates come from.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.diffraction.cell_search import find_cells
from crystallm.diffraction.likeness import parameter_penalty
from crystallm.diffraction.pattern import Peak, PreparedPattern
from crystallm.diffraction.powder_model import OrbitOfElement, PowderCrystal, ReflectionSet
from crystallm.diffraction.profile import ProfileParameters
from crystallm.diffraction.radiation import Radiation
from crystallm.diffraction.refinement import B_START, Fit, Refinement

if TYPE_CHECKING:
    from collections.abc import Mapping

MARGIN = 0.15
"""Share by which a cell may shrink in the search."""
N_CELLS = 2
"""Cells of a candidate that are refined."""
LEAST_CORRELATION = 0.55
"""Correlation in the search below which a cell is not refined; that of the right one is 0.85 and above."""
CELL_STEPS, COORDINATE_STEPS = 8, 30
"""Steps of the refinements, at most."""


def pattern_record(pattern: PreparedPattern) -> dict[str, Any]:
    """Return a pattern as a JSON value."""
    return {
        "first": float(pattern.two_theta[0]),
        "step": pattern.step,
        "intensity": pattern.intensity.tolist(),
        "background": pattern.background.tolist(),
        "sigma": pattern.sigma.tolist(),
        "peaks": [list(peak) for peak in pattern.peaks],
    }


def pattern_of(record: Mapping[str, Any]) -> PreparedPattern:
    """Return the pattern of a JSON value."""
    intensity = np.array(record["intensity"])
    return PreparedPattern(
        record["first"] + record["step"] * np.arange(len(intensity)),
        intensity,
        np.array(record["background"]),
        np.array(record["sigma"]),
        tuple(Peak(*peak) for peak in record["peaks"]),
    )


def crystal_record(crystal: PowderCrystal) -> dict[str, Any]:
    """Return a crystal as a JSON value."""
    return {
        "group": crystal.group.number,
        "orbits": [list(orbit) for orbit in crystal.orbits],
        "cell": crystal.cell.tolist(),
        "coordinates": crystal.coordinates.tolist(),
    }


def crystal_of(record: Mapping[str, Any]) -> PowderCrystal:
    """Return the crystal of a JSON value."""
    return PowderCrystal(
        space_groups.get(record["group"]),
        tuple(OrbitOfElement(element, position) for element, position in record["orbits"]),
        np.array(record["cell"], dtype=np.float64),
        np.array(record["coordinates"], dtype=np.float64),
    )


def radiation_record(radiation: Radiation) -> dict[str, Any]:
    """Return a radiation as a JSON value."""
    return asdict(radiation)


def fit_record(fit: Fit, pattern: PreparedPattern, radiation: Radiation, n_free: int) -> dict[str, Any]:
    """Return a fit as a JSON value, with the penalty of its free parameters."""
    reflections = ReflectionSet(fit.crystal, radiation, float(pattern.two_theta[-1]))
    found = reflections.intensities(fit.crystal, fit.displacement)
    inside = (found.two_theta >= pattern.two_theta[0]) & (found.two_theta <= pattern.two_theta[-1])
    penalty = parameter_penalty(n_free, found.two_theta[inside], found.values[inside], pattern.width)
    return {
        "crystal": crystal_record(fit.crystal),
        "profile": asdict(fit.profile),
        "displacement": fit.displacement,
        "scale": fit.scale,
        "rwp": fit.rwp,
        "penalty": penalty,
        "n_parameters": n_free + 5,
    }


def fit_cell(task: Mapping[str, Any]) -> dict[str, Any]:
    """Find and refine the cell of a candidate.

    Args:
        task: `pattern`, `radiation`, `crystal` and `seed`.
    """
    pattern, radiation = pattern_of(task["pattern"]), Radiation(**task["radiation"])
    crystal = crystal_of(task["crystal"])
    refinement = Refinement(pattern, radiation)
    wide = ReflectionSet(crystal, radiation, float(pattern.two_theta[-1]), MARGIN)
    fits = [
        refinement.run(
            crystal.with_values(cell=cell), steps=CELL_STEPS if correlation > LEAST_CORRELATION else 0
        )
        for cell, correlation in find_cells(pattern, crystal, wide, n=N_CELLS, seed=task["seed"])
    ]
    best = min(fits, key=lambda fit: fit.rwp)
    return fit_record(best, pattern, radiation, len(crystal.cell))


def fit_coordinates(task: Mapping[str, Any]) -> dict[str, Any]:
    """Refine all parameters of a candidate whose cell is found.

    Args:
        task: `pattern`, `radiation`, and `fit`, which `fit_cell` returned.
    """
    pattern, radiation = pattern_of(task["pattern"]), Radiation(**task["radiation"])
    best = continued(task["fit"], pattern, radiation, COORDINATE_STEPS)
    return fit_record(best, pattern, radiation, best.crystal.n_free)


def continued(fit: Mapping[str, Any], pattern: PreparedPattern, radiation: Radiation, steps: int) -> Fit:
    """Refine all parameters from where a fit ended, with at most this number of steps."""
    return Refinement(pattern, radiation).run(
        crystal_of(fit["crystal"]),
        ProfileParameters(**fit["profile"]),
        displacement=max(fit["displacement"], B_START),
        coordinates=True,
        steps=steps,
    )
