"""The table of elements holds the published numbers and refuses what has no token."""

from __future__ import annotations

import math

import pytest

from crystallm.crystallography import elements
from crystallm.errors import InputError


def test_the_elements_stand_in_the_order_of_their_tokens() -> None:
    assert len(elements.symbols()) == 89
    assert elements.symbols()[:5] == ("Si", "C", "Pb", "I", "Br")
    assert len(set(elements.symbols())) == 89


def test_numbers_are_those_of_the_periodic_table() -> None:
    for symbol in elements.symbols():
        assert elements.SYMBOLS_BY_NUMBER[elements.get(symbol).number - 1] == symbol


def test_manganese_has_the_radius_of_the_published_texts() -> None:
    manganese = elements.get("Mn")
    assert manganese.printed == ("1.5500", "1.4000", "0.6483")  # pymatgen 2026: 0.8775
    assert manganese.average_ionic_radius == pytest.approx(0.648333, abs=1e-6)


def test_iodine_has_all_that_the_bond_score_needs() -> None:
    iodine = elements.get("I")
    assert (iodine.electronegativity, iodine.atomic_radius) == (2.66, 1.4)
    assert iodine.average_cationic_radius == pytest.approx(0.88)
    assert iodine.average_anionic_radius == pytest.approx(2.06)


def test_printed_values_are_the_numbers_rounded() -> None:
    for symbol in elements.symbols():
        element = elements.get(symbol)
        if math.isnan(element.electronegativity) or element.atomic_radius is None:
            assert symbol in {"He", "Ne", "Ar", "Kr", "Xe"}
            continue
        assert [float(text) for text in element.printed] == [
            pytest.approx(value, abs=5.1e-5)
            for value in (element.electronegativity, element.atomic_radius, element.average_ionic_radius)
        ]


def test_volumes_of_atoms_add_up_to_volumes_of_crystals() -> None:
    assert elements.get("O").volume == 8.4
    assert (elements.get("O").covalent_radius, elements.get("Cs").covalent_radius) == (0.66, 2.44)
    assert all(4 <= elements.get(symbol).volume <= 80 for symbol in elements.symbols())
    known = {"rock salt": (44.9, "Na Cl"), "diamond": (5.7, "C"), "rutile": (31.2, "Ti O O")}
    for name, (volume, atoms) in known.items():  # Å^3 of a formula unit, measured
        expected = sum(elements.get(symbol).volume for symbol in atoms.split())
        assert expected == pytest.approx(volume, rel=0.4), name


def test_order_is_by_electronegativity_then_alphabet() -> None:
    assert elements.electronegativity_order(["O", "Na", "Ti"]) == ["Na", "Ti", "O"]
    assert elements.electronegativity_order(["Sc", "I", "Rb", "K"]) == ["K", "Rb", "Sc", "I"]
    assert elements.electronegativity_order(["Ru", "Pd", "Os", "Ir"]) == ["Ir", "Os", "Pd", "Ru"]
    assert elements.electronegativity_order(["Ar", "Kr", "He", "F"]) == ["Kr", "F", "Ar", "He"]
    assert elements.electronegativity_order([]) == []


@pytest.mark.parametrize("symbol", ["Po", "At", "Rn", "Fr", "Ra", "Am", "Og"])
def test_elements_without_a_token_are_refused_by_name(symbol: str) -> None:
    with pytest.raises(InputError, match=f"element {symbol} .* no token"):
        elements.get(symbol)
    with pytest.raises(InputError, match=f"element {symbol} "):
        elements.electronegativity_order(["O", symbol])


@pytest.mark.parametrize("symbol", ["", "Xx", "na", "NA", "D", "Na+" * 50])
def test_what_is_no_element_is_refused(symbol: str) -> None:
    with pytest.raises(InputError, match="is not an element"):
        elements.get(symbol)
