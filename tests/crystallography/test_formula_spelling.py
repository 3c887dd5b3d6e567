"""Signs in formulas: those that count are read, superscripts are rejected."""

from __future__ import annotations

import pytest

from crystallm.crystallography import formula_spelling
from crystallm.errors import InputError


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Nb₂O₅", "Nb2O5"),
        ("Al_{2}O_{3}", "Al2O3"),
        ("CaSO4.2H2O", "CaSO4·2H2O"),
        ("CaSO4.0.5H2O", "CaSO4·0.5H2O"),
        ("CaSO4·1½H2O", "CaSO4·3/2H2O"),
        ("Na2CO3·1.5H2O", "Na2CO3·1.5H2O"),
        ("Ca Cl2 . 6H2O", "Ca Cl2·6H2O"),
        ("CuSO4・5H2O", "CuSO4·5H2O"),
        ("Li0.5CoO2", "Li0.5CoO2"),
    ],
)
def test_spellings(text, plain):
    assert formula_spelling.plain(text) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("²H₂O", "2 before H is the mass number"),
        ("^6LiF", "6 before Li"),
        ("SO4^2-", "superscript"),
        ("TiO²", "superscript"),
    ],
)
def test_superscripts_are_named(text, message):
    with pytest.raises(InputError, match=message):
        formula_spelling.check_superscripts(text)
