"""The k-th largest number that bounds top-k; `test_token_sampler` compares drawn tokens with torch's."""

from __future__ import annotations

import numpy as np
import pytest

numba_sampler = pytest.importorskip("crystallm.sampling.numba_sampler")


@pytest.mark.parametrize("k", [1, 5, 32, 33, 100])
def test_the_kth_largest_number_is_that_of_a_sorted_list(k):
    values = np.random.default_rng(k).integers(0, 60, 100).astype(np.float32)  # with ties
    assert numba_sampler._kth_largest.py_func(values, k) == sorted(values.tolist(), reverse=True)[k - 1]


def test_rows_draw_from_tokens_of_their_own():
    drawn, intervals = np.empty(2, dtype=np.int64), np.empty((2, 2))
    logits = np.zeros((2, 9), np.float32)
    numba_sampler.draw_rows(
        logits, np.array([3, 4, 5, 8]), np.array([3, 4]), np.array([0.4, 0.9]), 1.0, 9, drawn, intervals
    )
    assert drawn.tolist() == [4, 8]
    assert intervals == pytest.approx(np.array([[1 / 3, 1 / 3], [0, 1]]))
