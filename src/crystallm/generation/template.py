"""Prompts from a template structure whose elements are replaced (ZrMn6Sn6 -> YMn6Ge6).

Space group and Wyckoff positions stay; the model samples cell and coordinates. In the published language,
which encodes the cell before the positions, only space group and cell formula stay. Does not depend on
networks.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from crystallm.crystallography import elements, formula
from crystallm.errors import InputError
from crystallm.orbits import description

if TYPE_CHECKING:
    import os

    from pymatgen.core import Structure

    from crystallm.language import Language


def read(path: str | os.PathLike[str]) -> Structure:
    """Return the only structure of a file.

    Raises:
        InputError: the file holds none, or several.
        TextError: not a crystal.
    """
    from crystallm.sources import collection, parsing

    found = list(collection.read(path))
    if len(found) != 1:
        raise InputError(f"{str(path)!r} holds {len(found)} crystals: give a file of one")
    if found[0].text is None:
        raise InputError(f"{str(path)!r} cannot be read: {found[0].problem}")
    return parsing.structure(found[0].text, found[0].format)


def template_prompt(structure: Structure, wanted: str, language: Language, symprec: float = 0.1) -> list[int]:
    """Return the prompt for a crystal with the symmetry and positions of another one.

    Elements are matched by their counts; where these are equal, in the order of their electronegativity.

    Args:
        structure: the template.
        wanted: formula of the new crystal.
        language: of the model.
        symprec: distance tolerance of the symmetry search, Å.

    Returns:
        Tokens of composition, space group and (in the orbits language) orbits.

    Raises:
        InputError: the formula has other proportions, or the language has no token for a part of it.
        TextError: the orbits language cannot describe the structure.
    """
    matched = _match_elements(structure, wanted)
    other = structure.copy()
    species: dict[Any, Any] = dict(matched)
    other.replace_species(species)
    # The canonical description of the new crystal: other elements, another order, perhaps another origin.
    new = description.describe(other, symprec)
    orbits = [(orbit.element, orbit.label) for orbit in new.orbits]
    return language.template_prompt(new.composition, new.space_group, orbits)


def _match_elements(structure: Structure, wanted: str) -> dict[str, str]:
    """Return the new element for each old one."""
    if not structure.is_ordered:
        raise InputError(f"{structure.formula}: sites shared by elements or partly empty have no text")
    given = Counter(str(site.specie.symbol) for site in structure)
    counts = formula.parse(wanted)
    old, new = (_by_count(_reduced(found)) for found in (given, counts))
    if [n for n, _ in old] != [n for n, _ in new]:
        written = "".join(f"{s}{n if n > 1 else ''}" for s, n in _reduced(given).items())
        raise InputError(
            f"{wanted!r} has other proportions than {written}: give a formula with the same ones"
        )
    return {old_symbol: new_symbol for (_, old_symbol), (_, new_symbol) in zip(old, new, strict=True)}


def _reduced(counts: dict[str, int] | Counter[str]) -> dict[str, int]:
    shared = math.gcd(*counts.values())
    return {symbol: counts[symbol] // shared for symbol in elements.electronegativity_order(counts)}


def _by_count(counts: dict[str, int]) -> list[tuple[int, str]]:
    return [(n, symbol) for symbol, n in sorted(counts.items(), key=lambda pair: pair[1])]
