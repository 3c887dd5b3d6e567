"""Completion of a structure with missing atoms.

The orbits of the structure are a fixed part, with or without their cell and coordinates; the model samples
the missing orbits. Models of the orbits language only.

A known crystal with other elements (see `references`) completes the part if it contains it: under an element
of the normaliser of their space group, and a shift along polar axes, each fixed orbit is one of its orbits,
of the same element, with coordinates that differ by at most `SAME_COORDINATES`. Then the fixed atoms and the
cell stay, and its other atoms are added.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crystallm.crystallography import formula, space_groups
from crystallm.crystallography.space_groups import apart
from crystallm.crystals import annotation
from crystallm.errors import InputError, TextError
from crystallm.generation.analogues import CombinedGenerator, crystal_of
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request
from crystallm.grammar.orbits.partial import MORE_UNITS, FixedPart, FixedPartGrammar
from crystallm.orbits import description
from crystallm.orbits.canonical import STEPS
from crystallm.references.candidates import SAME_COORDINATES, SAME_RATIO
from crystallm.references.lookup import find_analogues

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats, SpaceGroup
    from crystallm.crystals.crystal import Crystal
    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.choices import Choice
    from crystallm.generation.interpretation import InterpretedRequest
    from crystallm.generation.request import SamplingOptions
    from crystallm.models.model import Model
    from crystallm.orbits.description import Description
    from crystallm.references.library import Library
    from crystallm.references.lookup import Analogue

Kept = Literal["all", "orbits"]
N_LOOKED_UP = 100
"""Candidates among which those that contain the given part are sought."""
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
        start: number of the first sample, where earlier crystals are made elsewhere.

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
        *,
        start: int = 0,
    ) -> None:
        _require_orbits(model)
        self._fixed_part = fixed
        super().__init__(model, [_request(fixed, n)], settings, selection, starts=[start])

    def note(self, index: int) -> str:
        """Describe how the request was interpreted, and which atoms are added."""
        missing = formula.short(self._fixed_part.missing)
        return f"{super().note(index)}; {missing} added"

    def _grammar(self, pairs: Any, chosen: Sequence[Choice]) -> FixedPartGrammar:  # noqa: ARG002 - one for all
        return FixedPartGrammar(self._fixed_part, self.model.config.context)


class CombinedCompletionGenerator(CombinedGenerator):
    """Half of the crystals made of known ones that contain the fixed part, the others sampled.

    Args:
        model: loaded, of the orbits language.
        library: of known crystals.
        fixed: the fixed part.
        n: number of crystals.
        settings: as of `CompletionGenerator`.

    Raises:
        InputError: a model of another language.
    """

    def __init__(
        self,
        model: Model,
        library: Library,
        fixed: FixedPart,
        n: int,
        settings: SamplingOptions,
        *,
        selection: SelectionOptions | None = None,
    ) -> None:
        _require_orbits(model)
        super().__init__(model, library, [_request(fixed, n)], settings, selection)
        self._fixed_part = fixed

    def _sampler(
        self,
        plans: Sequence[InterpretedRequest],
        first: Sequence[int],  # noqa: ARG002 - there is one request
        starts: Sequence[int],
    ) -> CompletionGenerator:
        return CompletionGenerator(
            self.model,
            self._fixed_part,
            plans[0].request.n,
            self.settings,
            self._selection,
            start=starts[0],
        )

    def _of_relatives(self, counts: dict[int, int], *, valid: bool) -> Iterator[list[Crystal]]:
        for n in counts.values():
            found = known_completions(self.library, self._fixed_part)
            crystals = [crystal_of(analogue, i, self.plans[0].note) for i, analogue in enumerate(found[:n])]
            if valid:
                annotation.validate(crystals, self.executor)
            yield crystals


def known_completions(library: Library, fixed: FixedPart) -> list[Analogue]:
    """Return the completed crystals that known ones give, best first.

    Probabilities are those of `references.lookup`, among the known crystals that contain the part.
    """
    counts = dict(fixed.composition)
    found = find_analogues(
        library, counts, N_LOOKED_UP, space_group=fixed.space_group, z=math.gcd(*counts.values())
    )
    completed: dict[Description, Analogue] = {}
    for analogue in found:
        made = completed_by(fixed, analogue.description)
        if made is not None:
            completed.setdefault(made, replace(analogue, description=made))
    rest = 1 - sum(analogue.probability for analogue in found)
    total = max(rest, 0.0) + sum(analogue.probability for analogue in completed.values())
    return [
        replace(analogue, probability=analogue.probability / total if total else 0.0)
        for analogue in completed.values()
    ]


def completed_by(fixed: FixedPart, other: Description) -> Description | None:
    """Return a fixed part with the missing atoms of a crystal of the same space group and composition.

    None if the crystal does not contain the part, or its atoms fall onto each other there.
    """
    group = space_groups.get(fixed.space_group)
    if fixed.cell is not None and any(
        abs(one - two) > SAME_RATIO for one, two in zip(fixed.cell[1:], other.cell[1:], strict=True)
    ):
        return None
    ranks = {symbol: rank for rank, (symbol, _) in enumerate(fixed.composition)}
    index = {position.label: i for i, position in enumerate(group.wyckoff)}
    given = [
        (ranks[symbol], i, None if values is None else group.wyckoff[i].point([v / STEPS for v in values]))
        for symbol, i, values in fixed.orbits
    ]
    orbits = [
        (
            ranks[orbit.element],
            index[orbit.label],
            group.by_label[orbit.label].point([v / STEPS for v in orbit.coordinates]),
        )
        for orbit in other.orbits
    ]
    best: tuple[float, list[tuple[int, int, Floats]]] | None = None
    for letters, w, s in zip(group.letter_maps, *group.normaliser, strict=True):
        moved = [(rank, letters[i], w @ point + s) for rank, i, point in orbits]
        for shift in _shifts(group, moved, given):
            placed = [(rank, i, point + shift) for rank, i, point in moved]
            match = _matched(group, placed, given)
            if match is not None and (best is None or match[0] < best[0]):
                best = match
    if best is None:
        return None
    cell = other.cell if fixed.cell is None else fixed.cell
    try:
        return description.of_orbits(fixed.composition, group, best[1], cell)
    except TextError:
        return None


def _shifts(
    group: SpaceGroup,
    orbits: Sequence[tuple[int, int, Floats]],
    given: Sequence[tuple[int, int, Floats | None]],
) -> list[Floats]:
    """Return shifts [3] along polar axes that bring an image of an orbit to the first fixed one there."""
    rank, index, target = given[0]
    if not group.polar or target is None:
        return [np.zeros(3)]
    axes = list(group.polar)
    shifts = []
    for other_rank, other, point in orbits:
        if (other_rank, other) == (rank, index):
            off = np.zeros((len(group.rotations), 3))
            off[:, axes] = target[axes] - group.images(point)[:, axes]
            shifts += list(np.unique(np.round(off % 1.0, 4), axis=0))
    return shifts


def _matched(
    group: SpaceGroup,
    orbits: Sequence[tuple[int, int, Floats]],
    given: Sequence[tuple[int, int, Floats | None]],
) -> tuple[float, list[tuple[int, int, Floats]]] | None:
    """Return how far the nearest orbits are from the fixed ones, and all orbits with the fixed ones as given.

    None if a fixed orbit has no orbit of its kind within `SAME_COORDINATES`.
    """
    left, kept, total = list(orbits), [], 0.0
    for rank, index, target in given:
        near = [
            (0.0 if target is None else float(apart(group.images(point), target).min()), i)
            for i, (other_rank, other, point) in enumerate(left)
            if (other_rank, other) == (rank, index)
        ]
        if not near or min(near)[0] * STEPS > SAME_COORDINATES:
            return None
        total += min(near)[0]
        taken = left.pop(min(near)[1])
        kept.append((rank, index, taken[2] if target is None else target))
    return total, kept + left


def _require_orbits(model: Model) -> None:
    if model.language.name != "orbits":
        raise InputError(
            f"the model {model.name!r} has the language {model.language.name!r}: completion needs models "
            "of 'orbits', which encode the positions first"
        )


def _request(fixed: FixedPart, n: int) -> Request:
    """Return the request for the whole crystal."""
    whole = "".join(f"{symbol}{count}" for symbol, count in fixed.composition)
    return Request(formula=whole, space_group=str(fixed.space_group), n=n)
