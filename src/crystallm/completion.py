"""Crystals from a part of one: a host whose guests are to be found, and one like another of other elements.

    guests    a structure lacks atoms that its formula has: its orbits stay (with cell and coordinates, or
              these free), the others are written. In models of the orbits language.
    like      a structure's space group and Wyckoff positions with other elements (ZrMn6Sn6 -> YMn6Ge6); cell
              and coordinates are written anew. In models of the published language, whose texts tell the cell
              before the positions, group and cell formula alone are kept.

Knows structures and texts; sampling is that of `generation`.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from crystallm import elements, formula, orbits, spacegroups
from crystallm.asking import Request
from crystallm.errors import InputError
from crystallm.generation import Generator
from crystallm.grammar_orbits_known import Known, KnownRules

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from crystallm.answers import Selection
    from crystallm.checkpoint import Model
    from crystallm.choosing import Choice
    from crystallm.generation import Settings
    from crystallm.language import Language

Kept = Literal["all", "orbits"]


def read(path: str | os.PathLike[str]) -> Structure:
    """The one structure of a file.

    Raises:
        InputError: it holds none, or several.
        TextError: it is no crystal.
    """
    from crystallm import sources
    from crystallm.sources import parsing

    found = list(sources.read(path))
    if len(found) != 1:
        raise InputError(f"{str(path)!r} holds {len(found)} crystals: give a file of one")
    if found[0].text is None:
        raise InputError(f"{str(path)!r} cannot be read: {found[0].problem}")
    return parsing.structure(found[0].text, found[0].format)


# --- one like another ---


def like(structure: Structure, wanted: str, language: Language, symprec: float = 0.1) -> list[int]:
    """How a crystal begins that is built like another one.

    Elements are matched by their counts; where these are equal, in the order of their electronegativity.

    Args:
        structure: the known crystal.
        wanted: formula of the other.
        language: of the model.
        symprec: distance tolerance of the symmetry search, Å.

    Returns:
        Tokens of composition, space group and (in the orbits language) orbits.

    Raises:
        InputError: the formula has other proportions, or the language has no word for a part of it.
        TextError: the structure cannot be told as a crystal.
    """
    matched = _matched(structure, wanted)
    other = structure.copy()
    species: dict[Any, Any] = dict(matched)
    other.replace_species(species)
    # The canonical description of the new crystal: other elements, another order, perhaps another origin.
    told = orbits.describe(other, symprec)
    prompt = language.prompt(told.composition, told.space_group)
    if language.name != "orbits":
        return prompt
    return [*prompt, *orbits.ids(" ".join(f"{orbit.element} {orbit.label}" for orbit in told.orbits))]


def _matched(structure: Structure, wanted: str) -> dict[str, str]:
    """The new element in the place of each old one."""
    if not structure.is_ordered:
        raise InputError(f"{structure.formula}: sites shared by elements or partly empty have no text")
    there = Counter(str(site.specie.symbol) for site in structure)
    counts = formula.parse(wanted)
    old, new = (_by_count(_reduced(found)) for found in (there, counts))
    if [n for n, _ in old] != [n for n, _ in new]:
        written = "".join(f"{s}{n if n > 1 else ''}" for s, n in _reduced(there).items())
        raise InputError(f"{wanted!r} has other proportions than {written}: ask for a formula like it")
    return {before: after for (_, before), (_, after) in zip(old, new, strict=True)}


def _reduced(counts: dict[str, int] | Counter[str]) -> dict[str, int]:
    shared = math.gcd(*counts.values())
    return {symbol: counts[symbol] // shared for symbol in elements.electronegativity_order(counts)}


def _by_count(counts: dict[str, int]) -> list[tuple[int, str]]:
    return [(n, symbol) for symbol, n in sorted(counts.items(), key=lambda pair: pair[1])]


# --- a host and its guests ---


def host(
    structure: Structure, wanted: str, *, z: int | None = None, keep: Kept = "all", symprec: float = 0.1
) -> Known:
    """What is known of a crystal if a part of it is.

    Args:
        structure: the part; its space group is that of the whole.
        wanted: formula of the whole.
        z: reduced formula units in the part's conventional cell; None: the fewest that hold all its atoms.
        keep: `all` of it, or its `orbits` alone, with cell and coordinates free.
        symprec: distance tolerance of the symmetry search, Å.

    Raises:
        InputError: the part holds an element that the whole has not, nothing is missing, or it has no place.
        TextError: the part cannot be told as a crystal.
    """
    told = orbits.describe(structure, symprec)
    there = dict(told.composition)
    unit = dict(formula.cell(wanted, 1).composition)
    strange = [symbol for symbol in there if symbol not in unit]
    if strange:
        raise InputError(f"{wanted!r} has no {strange[0]}, which the given structure holds")
    if z is None:
        z = max(-(-n // unit[symbol]) for symbol, n in there.items())
    whole = formula.cell(wanted, z).composition
    group = spacegroups.get(told.space_group)
    indices = {position.label: i for i, position in enumerate(group.wyckoff)}
    cell = None
    if keep == "all":
        # The volume is told in units of that of the atoms, of which there are more now.
        ratio = orbits.volume_of_atoms(told.composition) / orbits.volume_of_atoms(whole)
        more = round(orbits.SCALE * math.log(ratio))
        cell = tuple(
            value + more if name == "a" else value
            for name, value in zip(group.free_cell, told.cell, strict=True)
        )
    known = tuple(
        (orbit.element, indices[orbit.label], orbit.coordinates if keep == "all" else None)
        for orbit in told.orbits
    )
    return Known(whole, told.space_group, known, cell)


class Completing(Generator):
    """A model at work on a crystal of which a part is known.

    Args:
        model: loaded, of the orbits language.
        known: the part.
        n: how many crystals.
        settings: how to sample; its constraints are always full.
        selection: how many samples it may take.

    Raises:
        InputError: a model of another language.
    """

    def __init__(
        self, model: Model, known: Known, n: int, settings: Settings, selection: Selection | None = None
    ) -> None:
        if model.language.name != "orbits":
            raise InputError(
                f"the model {model.name!r} writes {model.language.name!r}: atoms are added by models of "
                "'orbits', whose texts tell the positions first"
            )
        self._known = known
        whole = "".join(f"{symbol}{count}" for symbol, count in known.composition)
        request = Request(formula=whole, space_group=str(known.space_group), n=n)
        super().__init__(model, [request], settings, selection)

    def note(self, unit: int) -> str:
        """How the request was read, and which atoms are added."""
        missing = "".join(f"{symbol}{n}" for symbol, n in self._known.missing.items() if n)
        return f"{super().note(unit)}; {missing} added"

    def _rules(self, pairs: Any, chosen: Sequence[Choice]) -> KnownRules:  # noqa: ARG002 - one for all
        return KnownRules(self._known, self.model.config.context)
