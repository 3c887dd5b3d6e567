"""Crystals of which a part is known: a host whose guests are to be found.

A structure lacks atoms that its formula has: its orbits stay, with cell and coordinates or with these free,
and the others are written, by models of the orbits language. Knows structures and texts; sampling is that of
`generation`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from crystallm.crystallography import formula, space_groups
from crystallm.errors import InputError
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request
from crystallm.grammar.orbits.partial import MORE_UNITS, FixedPart, FixedPartGrammar
from crystallm.orbits import description

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.choices import Choice
    from crystallm.generation.request import SamplingOptions
    from crystallm.models.model import Model
    from crystallm.orbits.description import Description

Kept = Literal["all", "orbits"]
MORE = 24
"""Formula units above the fewest that hold the known atoms, up to which one looks for a Z that works."""


def host(
    structure: Structure, wanted: str, *, z: int | None = None, keep: Kept = "all", symprec: float = 0.1
) -> FixedPart:
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
    told = description.describe(structure, symprec)
    there = dict(told.composition)
    unit = dict(formula.cell(wanted, 1).composition)
    strange = [symbol for symbol in there if symbol not in unit]
    if strange:
        raise InputError(f"{wanted!r} has no {strange[0]}, which the given structure holds")
    least = max(-(-n // unit[symbol]) for symbol, n in there.items())
    whole = formula.cell(wanted, least if z is None else z).composition
    try:
        return _known(told, whole, keep)
    except InputError as error:
        mend = next((n for n in range(least, least + MORE) if _can_be(told, wanted, n, keep)), None)
        if mend is None or dict(whole) == there:  # where all is known, another formula is the mend
            raise
        said = str(error).removesuffix(MORE_UNITS)
        raise InputError(f"{said}: Z = {mend} is the least that works, ask for it with --z") from None


def _can_be(told: Description, wanted: str, z: int, keep: Kept) -> bool:
    """Whether so many formula units can be completed."""
    try:
        _known(told, formula.cell(wanted, z).composition, keep)
    except InputError:
        return False
    return True


def _known(told: Description, whole: tuple[tuple[str, int], ...], keep: Kept) -> FixedPart:
    """What is known of a cell of this composition."""
    group = space_groups.get(told.space_group)
    indices = {position.label: i for i, position in enumerate(group.wyckoff)}
    cell = None
    if keep == "all":
        # The volume is told in units of that of the atoms, of which there are more now.
        ratio = description.volume_of_atoms(told.composition) / description.volume_of_atoms(whole)
        more = round(description.SCALE * math.log(ratio))
        cell = tuple(
            value + more if name == "a" else value
            for name, value in zip(group.free_cell, told.cell, strict=True)
        )
    known = tuple(
        (orbit.element, indices[orbit.label], orbit.coordinates if keep == "all" else None)
        for orbit in told.orbits
    )
    return FixedPart(whole, told.space_group, known, cell)


class CompletionGenerator(Generator):
    """A model at work on a crystal of which a part is known.

    Args:
        settings: how to sample; its constraints are always full.

    Raises:
        InputError: a model of another language.
    """

    def __init__(
        self,
        model: Model,
        known: FixedPart,
        n: int,
        settings: SamplingOptions,
        selection: SelectionOptions | None = None,
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
        missing = formula.short("".join(f"{s}{n}" for s, n in self._known.missing.items() if n))
        return f"{super().note(unit)}; {missing} added"

    def _grammar(self, pairs: Any, chosen: Sequence[Choice]) -> FixedPartGrammar:  # noqa: ARG002 - one for all
        return FixedPartGrammar(self._known, self.model.config.context)
