"""A measured powder pattern, and what is derived from it before any crystal is known.

    b    background: on v = ln(ln(sqrt(y + 1) + 1) + 1) of smoothed y, v_i <- min(v_i, (v_{i-k} + v_{i+k})/2)
         for k = K to 1 points (statistics-sensitive clipping, SNIP), K points being 2.5 degrees or 12 widths
    s^2  variance: as the file has it, or k max(y, floor), with k from differences of neighbouring points:
         k = median((y_i - (y_{i-1} + y_{i+1}) / 2)^2 / (1.5 y_i)) / 0.455; 1 for counts
    peaks: maxima of y - b that stand out by 5 s and by 1 % of the highest one

Profiles are computed on a uniform grid: points nearer than a sixth of a peak's width are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import Floats

MIN_POINTS = 50
MAX_POINTS = 6000
"""Points of the grid."""
PER_WIDTH = 6
"""Points of the grid in the width of a peak, at least, where the pattern has them."""
BACKGROUND_REACH = 2.5
"""Degrees; see the module."""
SMOOTHING = 2.0
"""Width of the Gaussian that smooths a pattern before its background is estimated, points."""
OUTSTANDING = (5.0, 0.01)
"""How far a peak stands out: in standard deviations, and relative to the highest one."""


class Peak(NamedTuple):
    """A maximum of a pattern.

    Attributes:
        two_theta: degrees.
        height: above the background, in the units of the pattern.
        width: full width at half maximum, degrees.
    """

    two_theta: float
    height: float
    width: float


@dataclass(frozen=True, eq=False)
class PowderPattern:
    """Intensities over 2 theta.

    Attributes:
        two_theta: [n] rising, degrees.
        intensity: [n], in any unit.
        sigma: [n] standard deviations; None where they are not known.
        wavelength: Å, where the file has it.
        name: for messages.
    """

    two_theta: Floats
    intensity: Floats
    sigma: Floats | None = None
    wavelength: float | None = None
    name: str = "pattern"

    def __post_init__(self) -> None:
        check(self)

    def within(self, low: float | None, high: float | None) -> PowderPattern:
        """Return the part of the pattern between two angles (degrees)."""
        kept = np.ones(len(self.two_theta), dtype=bool)
        kept &= self.two_theta >= (-np.inf if low is None else low)
        kept &= self.two_theta <= (np.inf if high is None else high)
        sigma = None if self.sigma is None else self.sigma[kept]
        return replace(self, two_theta=self.two_theta[kept], intensity=self.intensity[kept], sigma=sigma)


def check(pattern: PowderPattern) -> None:
    """Check the numbers of a pattern.

    Raises:
        InputError: too few points, NaN, angles outside 0 to 180 degrees, negative counts, or no peak.
    """
    name, angles, counts = pattern.name, pattern.two_theta, pattern.intensity
    if len(angles) < MIN_POINTS:
        raise InputError(f"{name}: {len(angles)} points; a pattern has at least {MIN_POINTS}")
    if not (np.isfinite(angles).all() and np.isfinite(counts).all()):
        raise InputError(f"{name}: angles or intensities are NaN or infinite")
    if angles[0] < -10 or angles[-1] > 180:
        raise InputError(
            f"{name}: the first column runs from {angles[0]:g} to {angles[-1]:g}, which is no 2 theta in "
            "degrees; centidegrees, or another unit?"
        )
    if angles[-1] - angles[0] < 10:
        raise InputError(
            f"{name}: 2 theta runs from {angles[0]:g} to {angles[-1]:g} degrees, which is too "
            "little; are these d or Q? Name the column d or Q, and give --wavelength"
        )
    # What is left of a background that was subtracted scatters around 0.
    spread = float(np.median(np.abs(np.diff(counts)))) + 0.02 * float(np.ptp(counts))
    if counts.min() < -5 * spread:
        raise InputError(
            f"{name}: intensity = {counts.min():g} at 2 theta = {angles[counts.argmin()]:g}: counts are not "
            "negative"
        )
    if np.ptp(counts) == 0:
        raise InputError(f"{name}: all intensities are {counts[0]:g}: it has no peaks")


@dataclass(frozen=True, eq=False)
class PreparedPattern:
    """A pattern on a uniform grid, with background, variances and peaks.

    Attributes:
        two_theta: [n] uniform, degrees.
        intensity: [n].
        background: [n]; see the module.
        sigma: [n] standard deviations.
        peaks: in the order of their angles.
    """

    two_theta: Floats
    intensity: Floats
    background: Floats
    sigma: Floats
    peaks: tuple[Peak, ...]

    @property
    def step(self) -> float:
        """Distance of points, degrees."""
        return float(self.two_theta[1] - self.two_theta[0])

    @cached_property
    def signal(self) -> Floats:
        """Intensity above the background, [n]."""
        return self.intensity - self.background

    @cached_property
    def weights(self) -> Floats:
        """Weights w [n] with sum w (y - b)^2 = 1, in proportion to 1 / s^2."""
        weights = 1 / self.sigma**2
        return np.asarray(weights / (weights @ self.signal**2))

    @cached_property
    def width(self) -> float:
        """Typical width of a peak: the median of the 20 highest, degrees."""
        highest = sorted(self.peaks, key=lambda peak: -peak.height)[:20]
        return float(np.median([peak.width for peak in highest]))


def prepare(pattern: PowderPattern) -> PreparedPattern:
    """Return a pattern on its grid, with all that is derived from it.

    Raises:
        CrystallmError: there is no peak in it.
    """
    steps = np.diff(pattern.two_theta)  # 0 where several scans are in one file
    angles, counts, sigma = _uniform(pattern, float(np.median(steps[steps > 0])))
    noise = _noise(counts) if sigma is None else 0.0
    prepared = _derive(pattern.name, (angles, counts, sigma), noise, BACKGROUND_REACH)
    step = max(prepared.width / PER_WIDTH, (angles[-1] - angles[0]) / MAX_POINTS)
    n_averaged = int(step / (angles[1] - angles[0]))
    if n_averaged > 1:
        angles, counts, sigma = _uniform(pattern, n_averaged * (angles[1] - angles[0]))
        noise /= n_averaged
    return _derive(pattern.name, (angles, counts, sigma), noise, max(BACKGROUND_REACH, 12 * prepared.width))


def _derive(
    name: str, curve: tuple[Floats, Floats, Floats | None], noise: float, reach: float
) -> PreparedPattern:
    angles, counts, sigma = curve
    background = estimate_background(counts, max(2, round(reach / (angles[1] - angles[0]))))
    if sigma is None:
        floor = max(float(np.median(np.maximum(counts, 0))), 1e-3 * float(counts.max()))
        sigma = np.sqrt(max(noise, 1e-12) * np.maximum(counts, floor))
    peaks = find_peaks(angles, counts - background, sigma)
    if not peaks:
        raise CrystallmError(f"{name}: no peak stands out of its noise")
    floor = float(np.median(sigma)) / 3
    return PreparedPattern(angles, counts, background, np.maximum(sigma, floor), peaks)


def _uniform(pattern: PowderPattern, step: float) -> tuple[Floats, Floats, Floats | None]:
    """Return angles, intensities and standard deviations on a grid: means, interpolated where it is empty."""
    first, last = float(pattern.two_theta[0]), float(pattern.two_theta[-1])
    grid: Floats = first + step * np.arange(int((last - first) / step + 1e-6) + 1, dtype=np.float64)
    bins = np.clip(np.rint((pattern.two_theta - first) / step).astype(int), 0, len(grid) - 1)
    filled = np.bincount(bins, minlength=len(grid))
    sums = np.bincount(bins, pattern.intensity, len(grid))
    full = filled > 0
    # The mean angle of the points of a bin may be off its middle.
    mean_angles = np.bincount(bins, pattern.two_theta, len(grid))[full] / filled[full]
    intensity: Floats = np.interp(grid, mean_angles, sums[full] / filled[full]).astype(np.float64)
    if pattern.sigma is None:
        return grid, intensity, None
    variances = np.bincount(bins, pattern.sigma**2, len(grid))[full] / filled[full] ** 2
    errors: Floats = np.sqrt(np.interp(grid, mean_angles, variances)).astype(np.float64)
    return grid, intensity, errors


def _noise(counts: Floats) -> float:
    """Return k; see the module."""
    differences = (counts[1:-1] - (counts[:-2] + counts[2:]) / 2) ** 2
    middle = np.maximum(counts[1:-1], np.median(counts))
    middle = np.maximum(middle, 1e-6 * counts.max())
    return float(np.median(differences / (1.5 * middle))) / 0.455


def estimate_background(counts: Floats, reach: int) -> Floats:
    """Return the background of counts under peaks narrower than a number of points; see the module."""
    from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]

    smooth = gaussian_filter1d(np.maximum(counts, 0), SMOOTHING)
    values = np.log(np.log(np.sqrt(smooth + 1) + 1) + 1)
    for k in range(min(reach, (len(values) - 1) // 2), 0, -1):
        padded = np.pad(values, k, mode="reflect", reflect_type="odd")
        values = np.minimum(values, (padded[: -2 * k] + padded[2 * k :]) / 2)
    return np.asarray((np.exp(np.exp(values) - 1) - 1) ** 2 - 1)


def find_peaks(angles: Floats, signal: Floats, sigma: Floats) -> tuple[Peak, ...]:
    """Return the peaks of a signal without background; see the module."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks as maxima  # type: ignore[import-untyped]

    smooth = gaussian_filter1d(signal, 1.0)
    least = np.maximum(OUTSTANDING[0] * sigma, OUTSTANDING[1] * smooth.max())
    places, found = maxima(smooth, prominence=least.min(), width=1.0, rel_height=0.5)
    return tuple(
        Peak(float(angles[place]), float(smooth[place]), float(width * (angles[1] - angles[0])))
        for place, prominence, width in zip(places, found["prominences"], found["widths"], strict=True)
        if prominence >= least[place]
    )
