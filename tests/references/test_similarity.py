"""Chemical sense of the distances between elements."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.crystallography import elements
from crystallm.references.similarity import default_similarity


def distance(first: str, second: str) -> float:
    return float(default_similarity().table[elements.get(first).number, elements.get(second).number])


@pytest.mark.parametrize(
    ("element", "near", "far"),
    [("Na", "K", "Cl"), ("La", "Pr", "Al"), ("Fe", "Co", "Ba"), ("S", "Se", "Zr"), ("F", "Cl", "Cs")],
)
def test_elements_are_nearer_to_their_like(element, near, far) -> None:
    assert distance(element, element) == 0
    assert distance(element, near) == distance(near, element)
    assert 0 < distance(element, near) < distance(element, far)


def test_all_elements_with_a_token_have_distances() -> None:
    numbers = [elements.get(symbol).number for symbol in elements.symbols()]
    table = default_similarity().table
    assert np.isfinite(table[np.ix_(numbers, numbers)]).all()
    assert np.isinf(table[elements.get("H").number, 84])  # Po has no token


def test_weights_of_roles_add_up_to_one() -> None:
    weights = default_similarity().weights((1, 1, 3), ("Sr", "Ti", "O"))
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == weights[1]
