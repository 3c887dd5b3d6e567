"""Find the cell of a crystal in a pattern, from a cell that is some per cent off.

Many cells are drawn around the given one, lengths and angles by their spread. For each, the intensities of
the given coordinates are put at the angles of the cell, both patterns are smoothed by a Gaussian of width s,
and compared:

    r = corr(sqrt(smooth_s(calculated)), sqrt(smooth_s(measured))), Pearson's correlation over 2 theta

The best cells are the centres of the next draw, with smaller spread and smaller s: from some degrees, which
forgive a wrong cell, down to the width of the peaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crystallm.crystallography.space_groups import PARAMETERS
from crystallm.diffraction.powder_model import complete
from crystallm.diffraction.reflections import reciprocal_metric, volumes

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import Floats
    from crystallm.diffraction.pattern import PreparedPattern
    from crystallm.diffraction.powder_model import PowderCrystal, ReflectionSet

ISOTROPIC, ANISOTROPIC, ANGLE = 0.035, 0.025, 2.5
"""Spread of the cells: standard deviations of the logarithm of all lengths, of one length, and degrees."""
LEVELS = ((0.8, 1.0, 1.0), (0.4, 0.35, 0.4), (0.2, 0.12, 0.25), (0.1, 0.05, 0.15))
"""Rounds: s (degrees, for peaks of 0.1 degrees), share of the spread, share of the draws."""
DRAWS = {1: 300, 2: 1200, 3: 2000, 4: 3000, 6: 4000}
"""Cells of the first round, by the number of free parameters."""
N_LINES = 100
"""Strongest reflections that count."""
N_CENTRES = 12
SMALLEST, LARGEST = 0.75, 1.4
"""Relative volumes of cells that are looked at: scaled enough, a cell fits any wavelength."""


def find_cells(
    pattern: PreparedPattern, crystal: PowderCrystal, reflections: ReflectionSet, *, n: int = 1, seed: int = 0
) -> list[tuple[Floats, float]]:
    """Return the best cells, free parameters, with their correlation, best first.

    Args:
        crystal: whose cell is looked for.
        reflections: of it, to the end of the pattern with a margin.
        n: number of distinct cells, at most.
    """
    rng = np.random.default_rng(seed)
    names = crystal.group.free_cell
    is_length = np.array([name in PARAMETERS[:3] for name in names])
    values = reflections.intensities(crystal, 1.0).values
    strongest = np.sort(np.argsort(-values)[:N_LINES])
    lines = _StrongLines(reflections.quadratic[strongest], values[strongest])
    scale = pattern.width / 0.1
    n_draws = DRAWS[len(names)]
    centres = np.asarray(crystal.cell)[None]
    scores = np.array([-1.0])
    for sigma, spread, share in LEVELS:
        smoothing = max(sigma * min(max(scale, 0.5), 2.0), pattern.width / 2)
        drawn = _draw(rng, centres, spread, int(n_draws * share), is_length)
        cells = np.vstack([centres, drawn])
        scores = _correlations(pattern, reflections, lines, cells, smoothing)
        order = _distinct(cells, scores, spread, is_length)[:N_CENTRES]
        centres, scores = cells[order], scores[order]
        if sigma * scale < pattern.width / 2:
            break
    return [(cell, float(score)) for cell, score in zip(centres[:n], scores[:n], strict=True)]


def _draw(rng: np.random.Generator, centres: Floats, spread: float, n: int, is_length: np.ndarray) -> Floats:
    chosen = centres[rng.integers(len(centres), size=n)]
    common = rng.normal(size=(n, 1)) * ISOTROPIC * spread
    own = rng.normal(size=chosen.shape) * spread
    lengths = chosen * np.exp(common + own * (ANISOTROPIC if is_length.sum() > 1 else ISOTROPIC))
    return np.where(is_length, lengths, chosen + ANGLE * own)


class _StrongLines(NamedTuple):
    """The strongest reflections of a crystal: coefficients of 1/d^2, and intensities."""

    coefficients: Floats
    intensities: Floats


def _correlations(
    pattern: PreparedPattern, reflections: ReflectionSet, lines: _StrongLines, cells: Floats, smoothing: float
) -> Floats:
    """Return r of cells [n_cells, n_free]; -1 for a flat cell and one of another volume."""
    width = smoothing / 2
    first, last = float(pattern.two_theta[0]), float(pattern.two_theta[-1])
    n_bins = int((last - first) / width) + 1
    full = complete(reflections.crystal.group, cells)
    squares = reciprocal_metric(full) @ lines.coefficients.T
    ratio = volumes(full) / volumes(reflections.crystal.full_cell)
    flat = np.isnan(squares[:, 0]) | (ratio < SMALLEST) | (ratio > LARGEST)
    squares[flat] = 1e9
    bins = ((reflections.radiation.two_theta(squares) - first) / width + 0.5).astype(np.int32)
    bins[(bins < 0) | (bins > n_bins)] = n_bins  # of what is outside
    bins += np.arange(len(cells), dtype=np.int32)[:, None] * (n_bins + 1)
    weights = np.broadcast_to(lines.intensities, bins.shape).ravel()
    calculated = np.bincount(bins.ravel(), weights, len(cells) * (n_bins + 1)).reshape(len(cells), -1)
    measured = _binned(pattern, first, width, n_bins)
    shapes = _smooth(calculated[:, :n_bins].astype(np.float32))
    shape = _smooth(measured[None])[0]
    shape -= shape.mean()
    shapes -= shapes.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.einsum("ij,ij->i", shapes, shapes)) * np.linalg.norm(shape)
    return np.where(flat | (norms == 0), -1.0, shapes @ shape / np.maximum(norms, 1e-30))


def _smooth(histograms: Floats) -> Floats:
    """Return the square roots of smoothed histograms [n, n_bins]; the width of the Gaussian is two bins."""
    from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]

    smooth = gaussian_filter1d(histograms, 2.0, axis=1, mode="constant", truncate=2.5)
    return np.asarray(np.sqrt(np.maximum(smooth, 0, out=smooth), out=smooth))


def _binned(pattern: PreparedPattern, first: float, width: float, n_bins: int) -> Floats:
    """Return the signal of a pattern in bins, where it stands out of its noise."""
    signal = np.where(pattern.signal > pattern.sigma, pattern.signal, 0.0)
    bins = np.minimum(((pattern.two_theta - first) / width + 0.5).astype(int), n_bins - 1)
    return np.asarray(np.bincount(bins, signal, n_bins), dtype=np.float64)


def _distinct(cells: Floats, scores: Floats, spread: float, is_length: np.ndarray) -> list[int]:
    """Return the best cells that differ by more than a part of the spread, best first."""
    kept: list[int] = []
    for i in np.argsort(-scores)[:100]:
        apart = np.abs(cells[kept] - cells[i]) / np.where(is_length, ANISOTROPIC * cells[i], ANGLE)
        if not kept or apart.max(axis=1).min() > spread / 5:
            kept.append(int(i))
    return kept
