"""Peak profiles: the pattern of reflections, and its derivatives.

Over x = 2 theta - 2 theta_h - z, with zero shift z, a reflection is the pseudo-Voigt function

    P(x) = eta L(x) + (1 - eta) G(x), both of area 1 and of full width H at half maximum
    H^2 = W + X / cos^2 theta + U tan^2 theta, W, X, U >= 0

cut off at `REACH` widths. A second wavelength adds the same at its own angles, times the ratio of intensities
r. Intensities I_h are areas; the pattern is y = scale sum_h I_h P(2 theta - 2 theta_h - z) + background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import Floats
    from crystallm.diffraction.radiation import Radiation

REACH = 10.0
"""Widths after which a profile is cut off."""
MAX_REACH = 400
"""The same in points of the grid."""
LOG2 = float(np.log(2))


@dataclass(frozen=True, slots=True)
class ProfileParameters:
    """Parameters of a profile; see the module.

    Attributes:
        zero: z, degrees.
        w, x, u: degrees^2.
        eta: 0 for a Gaussian, 1 for a Lorentzian.
        ratio: r of the second wavelength; ignored for one wavelength.
    """

    zero: float
    w: float
    x: float
    u: float
    eta: float
    ratio: float

    def widths(self, two_theta: Floats) -> Floats:
        """Return H at angles (degrees)."""
        tangent = np.tan(np.radians(np.clip(two_theta, 0, 170)) / 2)
        return np.sqrt(self.w + self.x * (1 + tangent**2) + self.u * tangent**2)


class Profiles:
    """Profiles of reflections on a uniform grid, as sparse matrices [n_points, n_reflections].

    Args:
        grid: angles, uniform, degrees.
        two_theta: [n_reflections] of the stronger wavelength, degrees.
    """

    def __init__(
        self, grid: Floats, two_theta: Floats, parameters: ProfileParameters, radiation: Radiation
    ) -> None:
        self.grid, self.parameters = grid, parameters
        self.two_theta = two_theta
        self._parts = [_Part(grid, two_theta, parameters)]
        self._stretch = np.ones_like(two_theta)
        if radiation.second is not None:
            sines = np.sin(np.radians(two_theta) / 2) * radiation.second / radiation.wavelength
            other = 2 * np.degrees(np.arcsin(np.minimum(sines, 1.0)))
            # d(2 theta_2) / d(2 theta_1) = tan theta_2 / tan theta_1
            tangents = np.tan(np.radians(np.clip(other, 0, 175)) / 2)
            self._stretch = tangents / np.tan(np.radians(np.clip(two_theta, 0.05, 175)) / 2)
            self._parts.append(_Part(grid, np.where(sines < 1, other, 1e3), parameters))

    def pattern(self, intensities: Floats) -> Floats:
        """Return sum_h I_h P [n_points, ...] for intensities [n_reflections, ...]."""
        pattern = self._parts[0].values @ intensities
        if len(self._parts) > 1:
            pattern = pattern + self.parameters.ratio * (self._parts[1].values @ intensities)
        return np.asarray(pattern)

    def by_angle(self, intensities: Floats, shifts: Floats) -> Floats:
        """Return derivatives [n_points, k] by parameters that move 2 theta_h by shifts [n_reflections, k]."""
        moved = intensities[:, None] * shifts
        slope = self._parts[0].by_angle @ moved
        if len(self._parts) > 1:
            slope = slope + self.parameters.ratio * (
                self._parts[1].by_angle @ (moved * self._stretch[:, None])
            )
        return np.asarray(slope)

    def by_profile(self, intensities: Floats) -> Floats:
        """Return the derivatives [n_points, 6] by zero, ln w, ln x, ln u, eta and ratio."""
        p = self.parameters
        tangent = np.tan(np.radians(np.clip(self.two_theta, 0, 170)) / 2)
        widths = p.widths(self.two_theta)
        # dH / d ln w = w / (2 H), and likewise
        by_width = np.stack([np.full_like(tangent, p.w), p.x * (1 + tangent**2), p.u * tangent**2], axis=1)
        by_width *= (intensities / (2 * widths))[:, None]
        columns = []
        for part, share in zip(self._parts, (1.0, p.ratio), strict=False):
            zero = part.by_angle @ intensities
            columns.append(
                share * np.column_stack([zero, part.by_width @ by_width, part.by_eta @ intensities])
            )
        ratio = self._parts[1].values @ intensities if len(self._parts) > 1 else np.zeros(len(self.grid))
        return np.column_stack([sum(columns[1:], columns[0]), ratio])


class _Part:
    """Profiles of one wavelength, with their derivatives by angle, H and eta."""

    def __init__(self, grid: Floats, two_theta: Floats, p: ProfileParameters) -> None:
        from scipy.sparse import csc_matrix  # type: ignore[import-untyped]

        step = grid[1] - grid[0]
        centres = two_theta + p.zero
        widths = p.widths(two_theta)[:, None]
        on_grid = (centres > grid[0] - 3) & (centres < grid[-1] + 3)
        widest = float(widths[on_grid].max()) if on_grid.any() else float(widths.min())
        reach = int(np.clip(REACH * widest / step, 3, MAX_REACH))
        first = np.rint((centres - grid[0]) / step).astype(np.int64) - reach
        rows = first[:, None] + np.arange(2 * reach + 1)
        x = grid[0] + step * rows - centres[:, None]
        t = x / widths
        gauss = 2 * np.sqrt(LOG2 / np.pi) / widths * np.exp(-4 * LOG2 * t**2)
        lorentz = 2 / (np.pi * widths) / (1 + 4 * t**2)
        narrow = 8 * t / (1 + 4 * t**2) * lorentz  # -dL/dt
        steep = 8 * LOG2 * t * gauss  # -dG/dt
        falling = (p.eta * narrow + (1 - p.eta) * steep) / widths
        value = p.eta * lorentz + (1 - p.eta) * gauss
        n = len(grid)
        outside = (rows < 0) | (rows >= n)
        rows = np.where(outside, n, rows)
        pointers = np.arange(len(two_theta) + 1) * (2 * reach + 1)

        def matrix(entries: Floats) -> Any:
            return csc_matrix((entries.ravel(), rows.ravel(), pointers), shape=(n + 1, len(two_theta)))

        self._matrices = [matrix(e) for e in (value, falling, falling * t - value / widths, lorentz - gauss)]
        self.values, self.by_angle, self.by_width, self.by_eta = (_Cut(m, n) for m in self._matrices)


class _Cut:
    """A matrix without the last row of its products, which gathers what is off the grid."""

    def __init__(self, matrix: Any, n: int) -> None:
        self._matrix, self._n = matrix, n

    def __matmul__(self, other: Floats) -> Floats:
        return np.asarray((self._matrix @ other)[: self._n])
