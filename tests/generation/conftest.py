"""A crystal that several tests of generation keep parts of."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure


@pytest.fixture(scope="module")
def kagome():
    """ZrMn6Sn6, P6/mmm (HfFe6Ge6 type; Malaman et al., J. Magn. Magn. Mater. 202, 519, 1999)."""
    return Structure.from_spacegroup(
        "P6/mmm",
        Lattice.hexagonal(5.46, 8.96),
        ["Zr", "Mn", "Sn", "Sn", "Sn"],
        [[0, 0, 0.5], [0.5, 0, 0.251], [1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.5], [0, 0, 0.163]],
    )
