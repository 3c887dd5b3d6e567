"""The grammar for a request: which tokens are allowed next, from crystallography.

The core is exact feasibility: can orbits still fill what is left of the composition, when a Wyckoff position
without free coordinates holds one orbit at most? A state of the grammar has `allowed()` and `advance(token)`;
every choice it allows can be completed to a crystal with the composition requested.

Constraints come in three strengths: `none` (any token), `syntax` (the order of the parts, and positions that
the space group has), `full` (besides: the composition filled exactly, orbits in canonical order, a cell with
a volume, atoms on positions of the multiplicity printed).

Needs numpy; does not depend on networks, probabilities or structures.
"""

from __future__ import annotations

from collections.abc import Iterable

from crystallm.crystallography import formula, space_groups
from crystallm.crystallography.wyckoff_assignment import can_hold, groups_for
from crystallm.errors import InputError
from crystallm.grammar.base import CONSTRAINTS
from crystallm.grammar.cif.state import CifGrammar
from crystallm.grammar.composition import CompositionConstraint
from crystallm.grammar.orbits.state import OrbitsGrammar
from crystallm.grammar.text_length import groups_within, sequence_tokens


def make_grammar(
    language: str,
    composition: Iterable[tuple[str, int]] | None = None,
    space_group: int | None = None,
    constraints: str = "full",
    context: int | None = None,
    *,
    wanted: CompositionConstraint | None = None,
) -> OrbitsGrammar | CifGrammar | None:
    """Return the grammar for a request; None where nothing is constrained.

    Args:
        language: `orbits` or `cif`.
        composition: (element, count in the conventional cell).
        constraints: `full`, `syntax` or `none`.
        context: tokens that an orbits sequence may have; None for any number.
        wanted: constraint on a composition that is left to the network; only for `full`.

    Raises:
        InputError: no such strength, a group without a composition, one that cannot hold it, or a cell that
        does
            not fit the context; for `cif` also a group without a token, or less than one formula unit.
    """
    if constraints not in CONSTRAINTS:
        raise InputError(f"{constraints=} is none of {', '.join(CONSTRAINTS)}")
    if composition is None and space_group is not None:
        raise InputError(f"space group {space_group} without a formula: give one, such as TiO2")
    counts = None if composition is None else dict(composition)
    if constraints == "full" and counts and space_group and not can_hold(space_group, counts.values()):
        group = space_groups.get(space_group)
        cell = formula.short(counts)
        factors = [k for k in range(2, 25) if can_hold(space_group, (k * n for n in counts.values()))][:3]
        times = ", ".join(map(str, factors))
        remedy = f"{times} times as many atoms can" if factors else "choose another group"
        raise InputError(f"a cell of {cell} cannot fill {group.symbol} (#{group.number}); {remedy}")
    if constraints == "none":
        return None
    if language == "cif":
        from crystallm.grammar.cif.state import CifGrammar

        return CifGrammar(constraints, counts, space_group, wanted=wanted)
    from crystallm.grammar.orbits.state import OrbitsGrammar

    if constraints == "full" and counts and context is not None:
        _require_context(counts, space_group, context)
    return OrbitsGrammar(constraints, counts, space_group, context=context, wanted=wanted)


def _require_context(counts: dict[str, int], space_group: int | None, context: int) -> None:
    """Raise InputError if no sequence of a cell fits the context."""
    sizes = tuple(sorted(counts.values()))
    within = groups_within(sizes, context)
    if (space_group in within) if space_group is not None else within:
        return
    cell = formula.short(counts)
    where = "" if space_group is None else f" in {space_groups.get(space_group).symbol}"
    numbers = [space_group] if space_group is not None else groups_for(sizes)
    tokens = min(sequence_tokens(n, sizes) for n in numbers)
    remedy = "or a group with more symmetry" if space_group is not None and within else "or another model"
    raise InputError(
        f"a cell of {cell}{where} takes {tokens:.0f} tokens or more, the context of the model "
        f"holds {context}: request fewer formula units, {remedy}"
    )
