"""Refine a crystal against a pattern: cell, zero shift, peak widths, then coordinates (Rietveld's method).

The calculated pattern is y_c = k sum_h I_h P_h + sum_i c_i B_i, with B_i the estimated background and
Chebyshev polynomials. The parameters p minimise

    sum_points w (y - y_c)^2 + sum_p ((p - p_0) / sigma_p)^2 * HOLD,  w as in `PreparedPattern.weights`

k and c_i follow from p by linear least squares; the steps of p are Levenberg's and Marquardt's, with their
derivatives projected off the linear part (variable projection). The second sum holds parameters that the
pattern does not decide, such as the coordinates of light atoms, near their first values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from crystallm.crystallography.space_groups import PARAMETERS
from crystallm.diffraction.powder_model import PowderCrystal, ReflectionSet
from crystallm.diffraction.profile import ProfileParameters, Profiles

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import Floats
    from crystallm.diffraction.pattern import PreparedPattern
    from crystallm.diffraction.radiation import Radiation

HOLD = 1e-4
"""A parameter that is sigma off counts as an Rwp of 1 %."""
SIGMA = {"cell": 0.1, "angle": 5.0, "zero": 0.1, "width": 1.0, "eta": 0.5, "b": 1.0, "coordinate": 0.6}
"""Sigma of parameters: ln of lengths, degrees, degrees, ln, 1, Å^2, Å."""
N_POLYNOMIALS = 9
B_START = 0.5
B_RANGE = (-1.0, 6.0)
ETA_RANGE, RATIO_RANGE, ZERO_RANGE = (0.0, 1.0), (0.0, 0.65), (-0.6, 0.6)
FARTHEST = 0.02
"""Relative change of a cell parameter, at most: the search for cells comes nearer than that."""
DAMPING = 1e-3
CONVERGED = 2e-4
"""Relative change of Rwp^2 in a step, below which a refinement ends."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A crystal that was refined against a pattern.

    Attributes:
        crystal: refined.
        profile: refined.
        displacement: B, Å^2.
        scale: of intensities.
        calculated: [n] with its background.
        background: [n].
        rwp: without background, see `likeness`.
    """

    crystal: PowderCrystal
    profile: ProfileParameters
    displacement: float
    scale: float
    calculated: Floats
    background: Floats
    rwp: float

    @cached_property
    def peaks(self) -> Floats:
        """Calculated intensities above the background, [n]."""
        return self.calculated - self.background


class Refinement:
    """Refinements of crystals against one pattern.

    Args:
        pattern: measured.
        radiation: of the pattern.
    """

    def __init__(self, pattern: PreparedPattern, radiation: Radiation) -> None:
        self.pattern, self.radiation = pattern, radiation
        angles = pattern.two_theta
        x = np.linspace(-1, 1, len(angles))
        level = np.maximum(pattern.background, 0)
        columns = [
            level / max(level.max(), 1e-300),
            *np.polynomial.chebyshev.chebvander(x, N_POLYNOMIALS - 1).T,
        ]
        self.weights = np.sqrt(pattern.weights)
        self.basis = np.column_stack(columns)
        self._weighted_basis = self.basis * self.weights[:, None]
        self._target = pattern.intensity * self.weights

    def start_profile(self) -> ProfileParameters:
        """Return the profile to start with: that of the peaks of the pattern."""
        width = self.pattern.width
        ratio = 0.5 if self.radiation.second is not None else 0.0
        return ProfileParameters(0.0, 0.8 * width**2, 0.1 * width**2, 0.1 * width**2, 0.4, ratio)

    def run(
        self,
        crystal: PowderCrystal,
        profile: ProfileParameters | None = None,
        *,
        displacement: float = B_START,
        coordinates: bool = False,
        steps: int = 12,
        reflections: ReflectionSet | None = None,
    ) -> Fit:
        """Refine a crystal.

        Args:
            crystal: to start with.
            profile: to start with; None: from the peaks of the pattern.
            displacement: B to start with, Å^2.
            coordinates: whether they are refined too.
            steps: of Levenberg and Marquardt, at most.
            reflections: of the crystal; made if None.
        """
        if reflections is None:
            reflections = ReflectionSet(crystal, self.radiation, float(self.pattern.two_theta[-1]))
        start = _State(crystal, profile or self.start_profile(), displacement)
        return _Descent(self, start, reflections, coordinates=coordinates).run(steps)

    def linear(self, peaks: Floats) -> tuple[Floats, Floats, Floats]:
        """Return scale and background coefficients for peaks [n], the residuals, and an orthonormal basis."""
        columns = np.column_stack([peaks * self.weights, self._weighted_basis])
        norms = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
        q, r = np.linalg.qr(columns / norms)
        diagonal = np.abs(np.diag(r))
        usable = diagonal > 1e-8
        projected = q.T @ self._target
        r = r + np.diag(np.where(usable, 0.0, 1.0))
        coefficients = np.linalg.solve(r, np.where(usable, projected, 0.0)) / norms
        return coefficients, self._target - columns @ coefficients, q


@dataclass(frozen=True, eq=False)
class _State:
    """Values of all non-linear parameters."""

    crystal: PowderCrystal
    profile: ProfileParameters
    displacement: float

    def moved(self, step: Floats, *, coordinates: bool) -> _State:
        """Return the state after a step in the order of `_Descent.jacobian`."""
        crystal, p = self.crystal, self.profile
        n_cell = len(crystal.cell)
        is_length = np.array([name in PARAMETERS[:3] for name in crystal.group.free_cell])
        own = np.clip(step[:n_cell], -0.02, 0.02)
        cell = np.where(is_length, crystal.cell * np.exp(own), crystal.cell + np.degrees(own))
        zero, w, x, u, eta, ratio, displacement = step[n_cell : n_cell + 7]
        widths = np.array([p.w, p.x, p.u]) * np.exp(np.clip([w, x, u], -1, 1))
        new_w, new_x, new_u = np.clip(widths, 1e-8, 4.0).tolist()
        profile = ProfileParameters(
            zero=float(np.clip(p.zero + zero, *ZERO_RANGE)),
            w=new_w,
            x=new_x,
            u=new_u,
            eta=float(np.clip(p.eta + eta, *ETA_RANGE)),
            ratio=float(np.clip(p.ratio + ratio, *RATIO_RANGE)),
        )
        values = crystal.coordinates
        if coordinates:
            values = values + np.clip(step[n_cell + 7 :], -0.03, 0.03)
        return _State(
            crystal.with_values(cell=cell, coordinates=values),
            profile,
            float(np.clip(self.displacement + displacement, *B_RANGE)),
        )


class _Descent:
    """One refinement: its start, and what holds its parameters near it."""

    def __init__(
        self, refinement: Refinement, start: _State, reflections: ReflectionSet, *, coordinates: bool
    ) -> None:
        self.refinement, self.start, self.reflections = refinement, start, reflections
        self.coordinates = coordinates
        crystal = start.crystal
        is_length = [name in PARAMETERS[:3] for name in crystal.group.free_cell]
        sigma = [SIGMA["cell"] if length else np.radians(SIGMA["angle"]) for length in is_length]
        sigma += [SIGMA["zero"], *[SIGMA["width"]] * 3, SIGMA["eta"], SIGMA["eta"], SIGMA["b"]]
        if coordinates:
            edges = [
                crystal.full_cell[axis]
                for orbit in crystal.orbits
                for axis in crystal.group.wyckoff[orbit.position].free
            ]
            sigma += [SIGMA["coordinate"] / edge for edge in edges]
        self.hold = HOLD / np.array(sigma) ** 2

    def run(self, steps: int) -> Fit:
        """Descend."""
        state, damping = self.start, DAMPING
        offset = np.zeros(len(self.hold))
        current = self._evaluate(state, offset)
        for _ in range(steps):
            jacobian = self._jacobian(state, current)
            normal = jacobian.T @ jacobian + np.diag(self.hold)
            gradient = jacobian.T @ current.residuals - self.hold * offset
            scale = np.diag(normal) + 1e-12
            accepted = False
            for _ in range(5):
                step: Floats = np.linalg.solve(normal + np.diag(damping * scale), gradient).astype(np.float64)
                trial_state = state.moved(step, coordinates=self.coordinates)
                trial_offset = offset + step
                trial = self._evaluate(trial_state, trial_offset)
                if trial.cost < current.cost and self._is_near(trial_state.crystal):
                    accepted = True
                    break
                damping *= 6
            if not accepted:
                break
            gain = current.cost - trial.cost
            state, offset, current = trial_state, trial_offset, trial
            damping = max(damping / 6, 1e-7)
            if gain < CONVERGED * current.cost:
                break
        return self._fit(state, current)

    def _is_near(self, crystal: PowderCrystal) -> bool:
        """Return whether lengths are within `FARTHEST` of those at the start, and angles likewise."""
        start = self.start.crystal.full_cell
        return bool((np.abs(crystal.full_cell / start - 1) < FARTHEST).all())

    def _evaluate(self, state: _State, offset: Floats) -> _Evaluation:
        refinement = self.refinement
        found = self.reflections.intensities(state.crystal, state.displacement)
        profiles = Profiles(
            refinement.pattern.two_theta, found.two_theta, state.profile, refinement.radiation
        )
        norm = max(float(found.values.max(initial=0.0)), 1e-300)
        peaks = profiles.pattern(found.values / norm)
        coefficients, residuals, q = refinement.linear(peaks)
        cost = float(residuals @ residuals + self.hold @ offset**2)
        if coefficients[0] <= 0 or not np.isfinite(cost):
            cost = np.inf if not np.isfinite(cost) else 2.0 + cost
        return _Evaluation(profiles, found.values / norm, norm, peaks, coefficients, residuals, q, cost)

    def _jacobian(self, state: _State, now: _Evaluation) -> Floats:
        """Return the weighted derivatives [n_points, n_parameters] of the pattern, off the linear part."""
        found = self.reflections.intensities(state.crystal, state.displacement, derivatives=self.coordinates)
        columns = [
            now.profiles.by_angle(now.intensities, self._shifts(state.crystal)),
            now.profiles.by_profile(now.intensities),
        ]
        by_intensity = [found.by_displacement[:, None] / now.norm]
        if self.coordinates and found.by_coordinate is not None:
            by_intensity.append(found.by_coordinate / now.norm)
        columns.append(now.profiles.pattern(np.hstack(by_intensity)))
        jacobian = now.coefficients[0] * np.hstack(columns) * self.refinement.weights[:, None]
        if self.refinement.radiation.second is None:
            jacobian[:, len(state.crystal.cell) + 5] = 0.0
        return np.asarray(jacobian - now.q @ (now.q.T @ jacobian))

    def _shifts(self, crystal: PowderCrystal) -> Floats:
        """Return d(2 theta_h) / dp [n_reflections, n_cell], degrees per ln of a length or per radian."""
        is_length = np.array([name in PARAMETERS[:3] for name in crystal.group.free_cell])
        small = 1e-5
        steps = np.where(is_length, crystal.cell * small, np.degrees(small))
        cells = np.vstack([crystal.cell, crystal.cell + np.diag(steps)])
        angles = self.reflections.radiation.two_theta(self.reflections.squares(cells))
        return np.asarray((angles[1:] - angles[0]).T / small)

    def _fit(self, state: _State, now: _Evaluation) -> Fit:
        background = self.refinement.basis @ now.coefficients[1:]
        scale = max(float(now.coefficients[0]), 0.0)
        return Fit(
            state.crystal,
            state.profile,
            state.displacement,
            scale / now.norm,
            background + scale * now.peaks,
            background,
            float(np.sqrt(now.residuals @ now.residuals)) if scale > 0 else 1.0,
        )


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """The pattern of a state."""

    profiles: Profiles
    intensities: Floats
    norm: float
    peaks: Floats
    coefficients: Floats
    residuals: Floats
    q: Floats
    cost: float
