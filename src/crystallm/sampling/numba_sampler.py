"""Tokens drawn from logits, row by row, compiled for this processor on first use (numba).

Does not depend on torch. Importing this module needs numba. Letters of shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
from numba import njit

_MOST_INSERTED = 32  # top-k up to which the k-th largest number is found by insertion


@njit(no_cpython_wrapper=True)
def _kth_largest(values: Any, k: int) -> Any:
    """Return the k-th largest of at least k numbers."""
    n = len(values)
    if k > _MOST_INSERTED:
        return np.sort(values)[n - k]
    largest = np.full(k, -np.inf, np.float32)  # descending
    for value in values:
        if value > largest[k - 1]:
            i = k - 1
            while i > 0 and largest[i - 1] < value:
                largest[i] = largest[i - 1]
                i -= 1
            largest[i] = value
    return largest[k - 1]


def _draw_rows(  # noqa: PLR0917 - compiled code takes arguments by position
    logits: Any,
    tokens: Any,
    ends: Any,
    uniforms: Any,
    temperature: float,
    top_k: int,
    drawn: Any,
    intervals: Any,
) -> None:
    """Draw a token for each row, as `token_sampler.draw_tokens`, top-p aside.

    Args:
        logits: (N, V) float32.
        tokens: the allowed tokens of each row, ascending, row after row.
        ends: (N,) where those of each row end.
        uniforms: (N,) in [0, 1).
        temperature: 0 takes the most likely token.
        top_k: at least 1.
        drawn: (N,), written.
        intervals: (N, 2) float64, written: see `token_sampler.Drawn`.
    """
    scale = np.float32(temperature)
    first = 0
    for row in range(len(logits)):
        n = ends[row] - first
        values = np.empty(n, np.float32)
        best = 0
        for i in range(n):
            values[i] = logits[row, tokens[first + i]]
            if values[i] > values[best]:
                best = i
        chosen = best
        intervals[row] = 0.0, 1.0
        if temperature > 0:
            least = _kth_largest(values, top_k) if top_k < n else np.float32(-np.inf)
            highest = values[best]
            shares = np.empty(n)
            total = 0.0
            for i in range(n):
                shares[i] = exp(np.float64((values[i] - highest) / scale)) if values[i] >= least else 0.0
                total += shares[i]
            cumulative = 0.0
            for i in range(n):
                cumulative += shares[i] / total
                shares[i] = cumulative
            threshold = uniforms[row] * cumulative
            chosen = 0
            while shares[chosen] <= threshold:
                chosen += 1
            start = shares[chosen - 1] if chosen else 0.0
            intervals[row] = start / cumulative, (shares[chosen] - start) / cumulative
        drawn[row] = tokens[first + chosen]
        first = ends[row]


try:
    draw_rows = njit(cache=True, nogil=True, error_model="numpy")(_draw_rows)
except RuntimeError:  # no writable cache folder: each process compiles again, in seconds
    draw_rows = njit(nogil=True, error_model="numpy")(_draw_rows)
