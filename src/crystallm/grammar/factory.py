"""Which tokens may come next, and which must: crystallography beside the network.

The core is exact feasibility: can orbits still fill what is left of the composition, when a Wyckoff position
without free coordinates holds one orbit at most? Over it stands the automaton of the orbits language. A state
of the automaton answers two questions, `allowed()` and `advance(token)`; every choice it allows can be
completed to a crystal with the composition asked for.

Constraints come in three strengths: `none` (everything may follow anything), `syntax` (the order of a text's
parts, and positions that the space group has), `full` (besides: the composition filled exactly, orbits in
canonical order, a cell with a volume, atoms on positions of the multiplicity written).

Needs numpy; refuses to know networks, probabilities and structures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.crystallography import formula, space_groups
from crystallm.crystallography.wyckoff_assignment import can_hold, groups_for
from crystallm.errors import InputError
from crystallm.grammar.base import CONSTRAINTS
from crystallm.grammar.text_length import fewest_tokens, frame_tokens, groups_within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystallm.grammar.cif.state import CifRules
    from crystallm.grammar.composition import CompositionConstraint
    from crystallm.grammar.orbits.state import OrbitsRules


def rules(
    language: str,
    composition: Iterable[tuple[str, int]] | None = None,
    space_group: int | None = None,
    constraints: str = "full",
    context: int | None = None,
    *,
    wanted: CompositionConstraint | None = None,
) -> OrbitsRules | CifRules | None:
    """Rules for what was asked; None where nothing is constrained.

    Args:
        language: `orbits` or `cif`.
        composition: (element, count in the conventional cell).
        space_group: number.
        constraints: `full`, `syntax` or `none`.
        context: tokens that a text of the orbits language may have; None for any number.
        wanted: what is asked of the composition where it is not given; `full` alone heeds it.

    Raises:
        InputError: no such strength, a group without a composition, one that cannot hold it, or a cell that
            cannot be written within the context; for `cif` also a group without a token, or less than one
            formula unit.
    """
    if constraints not in CONSTRAINTS:
        raise InputError(f"{constraints=} is none of {', '.join(CONSTRAINTS)}")
    if composition is None and space_group is not None:
        raise InputError(f"space group {space_group} without a formula: give one, such as TiO2")
    counts = None if composition is None else dict(composition)
    if constraints == "full" and counts and space_group and not can_hold(space_group, counts.values()):
        group = space_groups.get(space_group)
        cell = formula.short("".join(f"{s}{n}" for s, n in counts.items()))
        factors = [k for k in range(2, 25) if can_hold(space_group, (k * n for n in counts.values()))][:3]
        mend = (
            f"; {', '.join(map(str, factors))} times as many atoms can"
            if factors
            else "; choose another group"
        )
        raise InputError(f"a cell of {cell} cannot fill {group.symbol} (#{group.number}){mend}")
    if constraints == "none":
        return None
    if language == "cif":
        from crystallm.grammar.cif.state import CifRules  # it builds on the core above

        return CifRules(constraints, counts, space_group, wanted=wanted)
    from crystallm.grammar.orbits.state import OrbitsRules

    if constraints == "full" and counts and context is not None:
        _refuse_outgrown(counts, space_group, context)
    return OrbitsRules(constraints, counts, space_group, context=context, wanted=wanted)


def _refuse_outgrown(counts: dict[str, int], space_group: int | None, context: int) -> None:
    """Raise InputError if a cell cannot be written within the context."""
    sizes = tuple(sorted(counts.values()))
    within = groups_within(sizes, context)
    if (space_group in within) if space_group is not None else within:
        return
    cell = formula.short("".join(f"{s}{n}" for s, n in counts.items()))
    where = "" if space_group is None else f" in {space_groups.get(space_group).symbol}"
    least = [space_group] if space_group is not None else groups_for(sizes)
    tokens = min(frame_tokens(n, len(sizes)) + fewest_tokens(n, sizes) for n in least)
    mend = "or a group with more symmetry" if space_group is not None and within else "or another model"
    raise InputError(
        f"a cell of {cell}{where} takes {tokens:.0f} tokens or more, the context of the model "
        f"holds {context}: ask for fewer formula units, {mend}"
    )
