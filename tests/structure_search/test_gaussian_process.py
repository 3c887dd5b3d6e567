"""Energies guessed from those of alike crystals."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.structure_search.gaussian_process import CEILING, Surrogate


def bowl(points):
    return -5.0 + 0.05 * ((points - 0.3) ** 2).sum(axis=1)


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(30, 3))


def test_the_bottom_of_a_bowl_is_guessed(points):
    predict = Surrogate(points, bowl(points))
    mean, deviation = predict.predict(np.array([[0.3, 0.3, 0.3], [2.0, 2.0, 2.0]]))
    assert mean[0] == pytest.approx(-5.0, abs=0.01)
    assert mean[0] < bowl(points).min()
    assert deviation[1] > 2 * deviation[0]


def test_what_is_known_is_not_guessed(points):
    mean, deviation = Surrogate(points, bowl(points)).predict(points)
    told = np.minimum(bowl(points), bowl(points).min() + CEILING)
    assert np.abs(mean - told).max() < 0.01
    assert deviation.max() < 0.02


def test_freaks_do_not_bend_the_bottom(points):
    energies = bowl(points)
    energies[energies.argmax()] = 1e3
    mean, _ = Surrogate(points, energies).predict(np.array([[0.3, 0.3, 0.3]]))
    assert mean[0] == pytest.approx(-5.0, abs=0.02)


def test_equal_energies_and_equal_points_are_no_trouble():
    mean, _ = Surrogate(np.zeros((5, 2)), np.full(5, -3.0)).predict(np.ones((1, 2)))
    assert mean[0] == pytest.approx(-3.0)
