"""Reference crystals of the elements."""

from __future__ import annotations

import importlib.util

import pytest

from crystallm.crystallography import elements
from crystallm.errors import InputError

pytestmark = pytest.mark.usefixtures("kept")


needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


@needs_ase
def test_every_element_of_the_language_has_a_reference_crystal():
    from crystallm.thermodynamics import reference_crystals

    for symbol in elements.symbols():
        structure = reference_crystals.element(symbol)
        assert {site.specie.symbol for site in structure} == {symbol}
        assert 5 < structure.volume / len(structure) < 125, symbol  # of diamond, and of caesium
        lengths = structure.get_neighbor_list(5.5)[3]
        assert 0.7 < lengths.min() < 5.4, symbol
    with pytest.raises(InputError, match="no reference crystal of 'Xx'"):
        reference_crystals.element("Xx")


def test_carbon_is_graphite():
    from crystallm.thermodynamics import reference_crystals

    carbon = reference_crystals.element("C")
    assert carbon.get_space_group_info() == ("P6_3/mmc", 194)
    assert carbon.volume / len(carbon) == pytest.approx(8.8, abs=0.1)  # diamond: 5.7
    neighbors = [len(found) for found in carbon.get_all_neighbors(1.5)]
    assert neighbors == [3, 3, 3, 3]


@pytest.mark.parametrize(("symbol", "bond"), [("F", 1.5), ("Cl", 2.0), ("Br", 2.3), ("I", 2.7)])
def test_halogens_are_layers_of_molecules(symbol, bond):
    from crystallm.thermodynamics import reference_crystals

    crystal = reference_crystals.element(symbol)
    assert crystal.get_space_group_info() == ("Cmce", 64)
    assert [len(found) for found in crystal.get_all_neighbors(1.2 * bond)] == [1] * len(crystal)
