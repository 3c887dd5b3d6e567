"""A small library of known crystals: textbook prototypes with several elements each."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pymatgen.core import Structure

from conftest import textbook
from crystallm.orbits import description
from crystallm.references.library import Library
from crystallm.references.prototypes import member_of

if TYPE_CHECKING:
    from crystallm.references.prototypes import PrototypeMember

REPLACED = {
    "rocksalt": [("Na", "Cl"), ("K", "Cl"), ("Li", "F"), ("Mg", "O")],
    "rutile": [("Ti", "O"), ("Sn", "O"), ("Mg", "F")],
    "perovskite": [("Sr", "Ti", "O"), ("Ba", "Ti", "O"), ("K", "Mg", "F")],
    "wurtzite": [("Zn", "S"), ("Zn", "O"), ("Al", "N")],
    "diamond": [("C",), ("Si",)],
}
"""Elements of each prototype in the place of those of the textbook."""


def with_elements(name: str, symbols: tuple[str, ...]) -> Structure:
    """Return a crystal of the textbook with other elements, in the order of its formula there."""
    structure = textbook()[name]
    old = list(dict.fromkeys(str(species.symbol) for species in structure.species))
    return Structure(
        structure.lattice,
        [dict(zip(old, symbols, strict=True))[str(species.symbol)] for species in structure.species],
        structure.frac_coords,
    )


def member(name: str, symbols: tuple[str, ...]) -> PrototypeMember:
    return member_of(description.describe(with_elements(name, symbols)))


@cache
def library() -> Library:
    return Library.of(
        (f"{name}-{''.join(symbols)}", "textbook", member(name, symbols))
        for name, several in REPLACED.items()
        for symbols in several
    )
