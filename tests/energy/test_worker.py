"""Energy models in worker processes."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from crystallm.energy import calculations
from crystallm.errors import CrystallmError


def of(element: str, a: float = 3.0) -> Structure:
    return Structure(Lattice.cubic(a), [element], [[0, 0, 0]])


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_reason():
    with pytest.raises(CrystallmError, match="^RuntimeError: the weights are gone$"):
        calculations.score([of("Cu")], "energies:unloadable")
