"""Completion of a structure with missing atoms.

The orbits of the structure are a fixed part, with or without their cell and coordinates; the model samples
the missing orbits. Models of the orbits language only.
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
MAX_EXTRA_Z = 24
"""Error messages suggest a Z up to this many formula units above the fewest that hold the fixed atoms."""


def fixed_part(
    structure: Structure, wanted: str, *, z: int | None = None, keep: Kept = "all", symprec: float = 0.1
) -> FixedPart:
    """Return the fixed part of a crystal from a structure with missing atoms.

    Args:
        structure: the part; its space group is that of the whole.
        wanted: formula of the whole.
        z: reduced formula units in the part's conventional cell; None: the fewest that hold all its atoms.
        keep: `all` of it, or its `orbits` alone, with cell and coordinates free.
        symprec: distance tolerance of the symmetry search, Å.

    Raises:
        InputError: the part has an element that the whole lacks, no atoms are missing, or no Wyckoff
            positions are left for them.
        TextError: the orbits language cannot describe the part.
    """
    part = description.describe(structure, symprec)
    given = dict(part.composition)
    counts = dict(formula.cell(wanted, 1).composition)
    foreign = [symbol for symbol in given if symbol not in counts]
    if foreign:
        raise InputError(f"{wanted!r} has no {foreign[0]}, which the given structure holds")
    min_z = max(-(-n // counts[symbol]) for symbol, n in given.items())
    whole = formula.cell(wanted, min_z if z is None else z).composition
    try:
        return _fixed_part(part, whole, keep)
    except InputError as error:
        larger = range(min_z, min_z + MAX_EXTRA_Z)
        remedy = next((n for n in larger if _can_complete(part, wanted, n, keep)), None)
        if (
            remedy is None or dict(whole) == given
        ):  # where no atoms are missing, the remedy is another formula
            raise
        problem = str(error).removesuffix(MORE_UNITS)
        raise InputError(f"{problem}: Z = {remedy} is the smallest that works (--z {remedy})") from None


def _can_complete(part: Description, wanted: str, z: int, keep: Kept) -> bool:
    """Return whether the part can be completed to z formula units."""
    try:
        _fixed_part(part, formula.cell(wanted, z).composition, keep)
    except InputError:
        return False
    return True


def _fixed_part(part: Description, whole: tuple[tuple[str, int], ...], keep: Kept) -> FixedPart:
    """Return the fixed part of a cell of this composition.

    Raises:
        InputError: as `fixed_part`.
    """
    group = space_groups.get(part.space_group)
    indices = {position.label: i for i, position in enumerate(group.wyckoff)}
    cell = None
    if keep == "all":
        # The volume is encoded in units of the volume of the atoms, of which the whole has more.
        ratio = description.volume_of_atoms(part.composition) / description.volume_of_atoms(whole)
        more = round(description.SCALE * math.log(ratio))
        cell = tuple(
            value + more if name == "a" else value
            for name, value in zip(group.free_cell, part.cell, strict=True)
        )
    fixed = tuple(
        (orbit.element, indices[orbit.label], orbit.coordinates if keep == "all" else None)
        for orbit in part.orbits
    )
    return FixedPart(whole, part.space_group, fixed, cell)


class CompletionGenerator(Generator):
    """A model that completes a crystal with a fixed part.

    Args:
        model: loaded, of the orbits language.
        fixed: the fixed part.
        n: number of crystals.
        settings: how to sample; its constraints are always full.

    Raises:
        InputError: a model of another language.
    """

    def __init__(
        self,
        model: Model,
        fixed: FixedPart,
        n: int,
        settings: SamplingOptions,
        selection: SelectionOptions | None = None,
    ) -> None:
        if model.language.name != "orbits":
            raise InputError(
                f"the model {model.name!r} has the language {model.language.name!r}: completion needs models "
                "of 'orbits', which encode the positions first"
            )
        self._fixed_part = fixed
        whole = "".join(f"{symbol}{count}" for symbol, count in fixed.composition)
        request = Request(formula=whole, space_group=str(fixed.space_group), n=n)
        super().__init__(model, [request], settings, selection)

    def note(self, index: int) -> str:
        """Describe how the request was interpreted, and which atoms are added."""
        missing = formula.short(self._fixed_part.missing)
        return f"{super().note(index)}; {missing} added"

    def _grammar(self, pairs: Any, chosen: Sequence[Choice]) -> FixedPartGrammar:  # noqa: ARG002 - one for all
        return FixedPartGrammar(self._fixed_part, self.model.config.context)
