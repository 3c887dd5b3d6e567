"""Energies predicted from those of similar crystals: a Gaussian process over their parameters.

    y(x) ~ GP(0, exp(-|x - x'|^2 / (2 l^2)) + s^2 [x = x'])

with x the parameters in units of a typical length of each, y the energies less their mean, over their
standard deviation, and l the one of LENGTHS that makes the known energies most likely. Energies far above
the lowest one are cut off at a ceiling: the prediction needs to be accurate for low energies. Does not depend
on crystals.
"""

from __future__ import annotations

import numpy as np

from crystallm.crystallography.space_groups import Floats

LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
NOISE = 0.02
"""s, in standard deviations: parameters are rounded."""
CEILING = 0.3
"""Above the lowest energy, eV per atom."""


class Surrogate:
    """Predicts energies.

    Args:
        points: parameters of crystals with energies, (n, d), n at least 2.
        energies: (n,) eV per atom.
    """

    def __init__(self, points: Floats, energies: Floats) -> None:
        targets = np.minimum(energies, energies.min() + CEILING)
        self._mean, deviation = float(targets.mean()), float(targets.std())
        self._scale = deviation or 1.0
        self._points = points
        heights = (targets - self._mean) / self._scale
        best = -np.inf
        for length in LENGTHS:
            kernel = _kernel(points, points, length) + NOISE**2 * np.eye(len(points))
            factor = np.linalg.cholesky(kernel)
            weights = np.linalg.solve(factor.T, np.linalg.solve(factor, heights))
            likelihood = float(-heights @ weights / 2 - np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, self._length, self._factor, self._weights = likelihood, length, factor, weights

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Return energies and their standard deviations, (m,) each, eV per atom, at points (m, d)."""
        kernel = _kernel(points, self._points, self._length)  # (m, n)
        mean = kernel @ self._weights
        whitened = np.linalg.solve(self._factor, kernel.T)  # (n, m)
        variance = np.maximum(1.0 - (whitened**2).sum(axis=0), 0.0)
        return self._mean + self._scale * mean, self._scale * np.sqrt(variance)


def _kernel(left: Floats, right: Floats, length: float) -> Floats:
    squared_distances = ((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squared_distances / (2 * length**2)))
