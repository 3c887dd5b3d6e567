"""A guess at energies from those known of alike crystals: a Gaussian process over their numbers.

    y(x) ~ GP(0, exp(-|x - x'|^2 / (2 l^2)) + s^2 [x = x'])

with x the numbers in units of a length that matters for each, y energies less their mean over their
deviation, and l the one of LENGTHS under which the known energies are likeliest. What is far above the lowest
energy is told no higher than a ceiling: a guess that is fine at the bottom is what is wanted. Knows numbers
alone.
"""

from __future__ import annotations

import numpy as np

from crystallm.crystallography.space_groups import Floats

LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
NOISE = 0.02
"""s, of a deviation: numbers are rounded."""
CEILING = 0.3
"""Above the lowest energy, eV per atom."""


class Surrogate:
    """Guesses energies.

    Args:
        points: numbers of what is known, (n, d), n at least 2.
        energies: (n,) eV per atom.
    """

    def __init__(self, points: Floats, energies: Floats) -> None:
        told = np.minimum(energies, energies.min() + CEILING)
        self._mean, deviation = float(told.mean()), float(told.std())
        self._scale = deviation or 1.0
        self._points = points
        heights = (told - self._mean) / self._scale
        best = -np.inf
        for length in LENGTHS:
            kernel = _kernel(points, points, length) + NOISE**2 * np.eye(len(points))
            factor = np.linalg.cholesky(kernel)
            weights = np.linalg.solve(factor.T, np.linalg.solve(factor, heights))
            likelihood = float(-heights @ weights / 2 - np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, self._length, self._factor, self._weights = likelihood, length, factor, weights

    def guess(self, points: Floats) -> tuple[Floats, Floats]:
        """Energies and their uncertainty, (m,) each, eV per atom, at points (m, d)."""
        kernel = _kernel(points, self._points, self._length)  # (m, n)
        mean = kernel @ self._weights
        part = np.linalg.solve(self._factor, kernel.T)  # (n, m)
        variance = np.maximum(1.0 - (part**2).sum(axis=0), 0.0)
        return self._mean + self._scale * mean, self._scale * np.sqrt(variance)


def _kernel(left: Floats, right: Floats, length: float) -> Floats:
    apart = ((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-apart / (2 * length**2)))
