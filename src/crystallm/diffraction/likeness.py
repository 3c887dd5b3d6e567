"""How well a calculated pattern is like a measured one, and what it leaves unexplained.

With measured y, its estimated background b, calculated y_c with its background b_c, and weights w = 1 / s^2:

    Rwp   = sqrt(sum w (y - y_c)^2 / sum w (y - b)^2), without background
    Rexp  = sqrt((n_points - n_parameters) / sum w (y - b)^2), what counting noise leaves
    S     = c(f, g) / sqrt(c(f, f) c(g, g)), f = y - b_c where that is above 2 s, else 0, g = y_c - b_c,
            c(f, g) = sum_ij max(0, 1 - |x_i - x_j| / l) f_i g_j, l = 0.6 degrees

S is the similarity of de Gelder, Wehrens and Hageman (J. Comput. Chem. 22, 273, 2001), 1 for equal patterns:
a peak that is off by less than l counts in part. A measured peak is unexplained if less than `EXPLAINED` of
its height is calculated within its width. Rwp and S are also computed without the surroundings of such peaks:
a crystal beside which the sample has another phase fits there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crystallm.diffraction.pattern import Peak

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Floats
    from crystallm.diffraction.pattern import PreparedPattern

ABOVE = 2.0
"""Standard deviations above which a signal counts for S."""
FORGIVEN = 0.6
"""l, degrees."""
EXPLAINED = 0.25
LARGEST_RWP, LEAST_SIMILARITY, LARGEST_REST = 0.5, 0.95, 0.15
"""A crystal fits with at most this Rwp (or twice Rexp), at least this S, and this share of the heights of
peaks unexplained."""
LARGEST_PART = 0.5
"""It fits in part with this share unexplained, and these Rwp and S without their surroundings."""
SURROUNDINGS = 1.5
"""Of a peak, in widths to both sides."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Likeness of two patterns; see the module.

    Attributes:
        unexplained: measured peaks that are not calculated, the highest first.
        share_unexplained: their heights, relative to those of all peaks.
        rwp_explained, similarity_explained: without the surroundings of these peaks.
    """

    rwp: float
    expected: float
    similarity: float
    unexplained: tuple[Peak, ...]
    share_unexplained: float
    rwp_explained: float
    similarity_explained: float

    @property
    def fits(self) -> bool:
        """Whether the calculated pattern explains the measured one."""
        return (
            self.rwp <= max(LARGEST_RWP, 2 * self.expected)
            and self.similarity >= LEAST_SIMILARITY
            and self.share_unexplained <= LARGEST_REST
        )

    @property
    def fits_in_part(self) -> bool:
        """Whether it explains all but some peaks, which another phase may have."""
        return (
            self.rwp_explained <= max(LARGEST_RWP, 2 * self.expected)
            and self.similarity_explained >= LEAST_SIMILARITY
            and self.share_unexplained <= LARGEST_PART
        )


def likeness(pattern: PreparedPattern, peaks: Floats, residuals: Floats, n_parameters: int) -> Likeness:
    """Return the likeness of a calculated pattern.

    Args:
        pattern: measured.
        peaks: [n] calculated, without background.
        residuals: [n] y - y_c.
        n_parameters: that were refined.
    """
    weights = pattern.weights
    signal = residuals + peaks  # y - b_c
    above_noise = np.where(signal > ABOVE * pattern.sigma, signal, 0.0)
    calculated = np.maximum(peaks, 0)
    rest = unexplained(pattern, peaks)
    apart = np.ones(len(peaks))
    for peak in rest:
        reach = SURROUNDINGS * max(peak.width, pattern.width)
        apart[np.abs(pattern.two_theta - peak.two_theta) <= reach] = 0.0
    norm = float(weights @ (apart * pattern.signal**2))
    heights = sum(peak.height for peak in pattern.peaks)
    free = max(1, len(residuals) - n_parameters)
    # The weights are 1 / s^2 but for a factor.
    total = 1 / float(np.median(weights * pattern.sigma**2))
    return Likeness(
        rwp=float(np.sqrt(weights @ residuals**2)),
        expected=float(np.sqrt(free / total)),
        similarity=similarity(above_noise, calculated, pattern.step),
        unexplained=rest,
        share_unexplained=sum(peak.height for peak in rest) / heights,
        rwp_explained=float(np.sqrt(weights @ (apart * residuals**2) / norm)) if norm > 0 else 1.0,
        similarity_explained=similarity(apart * above_noise, apart * calculated, pattern.step),
    )


def similarity(first: Floats, second: Floats, step: float, forgiven: float = FORGIVEN) -> float:
    """Return S of two patterns on one uniform grid.

    Args:
        step: of the grid, degrees.
        forgiven: l, degrees.
    """
    from scipy.signal import fftconvolve  # type: ignore[import-untyped]

    reach = max(1, int(forgiven / step))
    triangle = 1 - np.abs(np.arange(-reach, reach + 1)) * step / max(forgiven, step)
    triangle = np.maximum(triangle, 0)
    blurred = [fftconvolve(values, triangle, mode="same") for values in (first, second)]
    norm = float((first @ blurred[0]) * (second @ blurred[1]))
    return float(first @ blurred[1] / np.sqrt(norm)) if norm > 0 else 0.0


def unexplained(pattern: PreparedPattern, peaks: Floats) -> tuple[Peak, ...]:
    """Return the measured peaks that are not calculated, the highest first."""
    rest = []
    for peak in pattern.peaks:
        near = np.abs(pattern.two_theta - peak.two_theta) <= max(peak.width, pattern.width)
        if peaks[near].max(initial=0.0) < EXPLAINED * peak.height:
            rest.append(peak)
    return tuple(sorted(rest, key=lambda peak: -peak.height))


def spacing(two_theta: float, wavelength: float) -> float:
    """Return d (Å) of an angle (degrees)."""
    return wavelength / (2 * float(np.sin(np.radians(two_theta) / 2)))


def parameter_penalty(n_parameters: int, two_theta: Floats, intensities: Floats, width: float) -> float:
    """Return sqrt(n / (n - n_parameters)), n the number of reflections that the pattern keeps apart.

    Reflections nearer than half a width of a peak count as one; those weaker than 0.1 % of the strongest do
    not count.
    """
    strong: Sequence[float] = np.sort(two_theta[intensities > 1e-3 * intensities.max(initial=0.0)]).tolist()
    n, last = 0, -np.inf
    for angle in strong:
        if angle - last > width / 2:
            n, last = n + 1, angle
    return float(np.sqrt(n / max(n - n_parameters, 0.2 * n))) if n else 1.0
