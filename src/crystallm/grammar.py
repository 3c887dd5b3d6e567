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

from collections import Counter
from functools import cache, lru_cache
from itertools import chain, product
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from crystallm.crystallography import formula, space_groups
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystallm.grammar_cif import CifRules
    from crystallm.grammar_composition import Wanted
    from crystallm.grammar_orbits import OrbitsRules

CONSTRAINTS = ("full", "syntax", "none")
REWRITES = 4  # of one orbit's coordinates, where they put atoms too close
UNGUIDED = 2  # of these in a text, before an orbit's last coordinate is kept to values that leave atoms room
CELL_REWRITES = 4  # of cell and coordinates together, where those do not help; of 100 cells the 5th cures 3
STRAY_CELLS = 1  # of these for another group than was written: 1 of 76 cures, the orbits have more symmetry
ORBIT_REWRITES = 2  # of the choice of Wyckoff positions and all behind it, where those do not help either
GROUP_REWRITES = 4  # of the space group and all behind it; of the orbits once more, if it was asked for
BOND_REWRITES = 6  # of all these, for bonds alone: 4 % of real crystals have odd bonds, and are let be then
ODD_REWRITES = (
    10  # the same where only orbits with odd bonds and those behind are taken back, at half the cost
)
WORK = 400  # tokens taken back in a text, in all; 100 more cure 3 more of 1,000 crystals
KEPT = 1 << 16  # answers about counts, so that a million compositions do not fill the memory


@cache
def position_counts(number: int) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Multiplicities of positions with free coordinates, and (multiplicity, how many) of those without."""
    group = space_groups.get(number)
    free = tuple(sorted({w.multiplicity for w in group.wyckoff if w.free}))
    fixed = Counter(w.multiplicity for w in group.wyckoff if not w.free)
    return free, tuple(sorted(fixed.items()))


@lru_cache(maxsize=KEPT)
def is_sum(count: int, parts: tuple[int, ...]) -> bool:
    """Whether a count is a sum of parts, each used any number of times."""
    reach, within = 1, (2 << count) - 1  # bit n: n is a sum
    for part in parts:
        shift = part
        while shift <= count:  # 1 more, 2 more, 4 more of the part
            reach |= reach << shift & within
            shift *= 2
    return bool(reach >> count & 1)


def uses(count: int, fixed: tuple[tuple[int, int], ...]) -> Iterable[tuple[int, ...]]:
    """How many orbits of each fixed multiplicity may serve a count, most first."""
    return product(*(range(min(n, count // m), -1, -1) for m, n in fixed))


@lru_cache(maxsize=KEPT)
def fits(free: tuple[int, ...], fixed: tuple[tuple[int, int], ...], counts: tuple[int, ...]) -> bool:
    """Whether counts (sorted, one an element) can be filled together."""
    if all(is_sum(count, free) for count in counts):
        return True  # so it is with no counts at all
    parts = (*free, *(m for m, _ in fixed))
    if not all(is_sum(count, parts) for count in counts):
        return False
    count, rest = counts[-1], counts[:-1]
    for used in uses(count, fixed):
        left = count - sum(u * m for u, (m, _) in zip(used, fixed, strict=True))
        if left < 0 or not is_sum(left, free):
            continue
        remaining = tuple((m, n - u) for u, (m, n) in zip(used, fixed, strict=True))
        if fits(free, remaining, rest):
            return True
    return False


def can_hold(number: int, counts: Iterable[int]) -> bool:
    """Whether a space group can hold a cell with these counts of its elements."""
    free, fixed = position_counts(number)
    return fits(free, fixed, tuple(sorted(counts)))


@lru_cache(maxsize=KEPT)
def groups_for(counts: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of the space groups that can hold a cell with these counts (sorted)."""
    holding = (numbers for kind, numbers in _alike().items() if fits(*kind, counts))
    return tuple(sorted(chain.from_iterable(holding)))


@cache
def _alike() -> dict[tuple[Any, Any], tuple[int, ...]]:
    """Numbers of the space groups by `position_counts`."""
    found: dict[tuple[Any, Any], tuple[int, ...]] = {}
    for number in range(1, 231):
        kind = position_counts(number)
        found[kind] = (*found.get(kind, ()), number)
    return found


@lru_cache(maxsize=KEPT)
def _can_finish(number: int, taken: frozenset[int], first: int, left: int, later: tuple[int, ...]) -> bool:
    """Whether the current element's `left` atoms and the later elements' counts still find place.

    Args:
        number: space group.
        taken: indices of fixed positions in use.
        first: smallest Wyckoff index that the current element may still take (orbits stand in order).
        left: atoms of the current element still to place.
        later: counts of the elements after it, sorted.
    """
    all_free, _ = position_counts(number)
    free, fixed, total = _supply(number, taken, first)
    for used in uses(left, fixed):
        rest = left - sum(u * m for u, (m, _) in zip(used, fixed, strict=True))
        if rest < 0 or not is_sum(rest, free):
            continue
        if not later:
            return True
        spent = {m: u for u, (m, _) in zip(used, fixed, strict=True)}
        if fits(all_free, tuple((m, n - spent.get(m, 0)) for m, n in total), later):
            return True
    return False


@lru_cache(maxsize=KEPT)
def _supply(
    number: int, taken: frozenset[int], first: int
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Positions not taken: multiplicities of those with free coordinates, and how many of those without.

    Both from the index `first` on; the third is as the second from the first position on. See `_can_finish`.
    """
    wyckoff = space_groups.get(number).wyckoff
    free = tuple(sorted({w.multiplicity for w in wyckoff[first:] if w.free}))
    open_fixed = [(i, w.multiplicity) for i, w in enumerate(wyckoff) if not w.free and i not in taken]
    fixed = Counter(m for i, m in open_fixed if i >= first)
    return free, tuple(sorted(fixed.items())), tuple(sorted(Counter(m for _, m in open_fixed).items()))


@lru_cache(maxsize=KEPT)
def labels_allowed(
    number: int, taken: frozenset[int], first: int, left: int, later: tuple[int, ...]
) -> tuple[int, ...]:
    """Indices of the Wyckoff positions that may hold the current element's next orbit."""
    found = []
    for index, position in enumerate(space_groups.get(number).wyckoff):
        if index < first or position.multiplicity > left or index in taken:
            continue
        now_taken = taken if position.free else taken | {index}
        if _can_finish(number, now_taken, index, left - position.multiplicity, later):
            found.append(index)
    return tuple(found)


def orbit_tokens(free: int) -> int:
    """Tokens of the orbits language for one orbit whose position has so many free coordinates."""
    return 2 + 2 * free


@lru_cache(maxsize=KEPT)
def _cheapest_sum(count: int, parts: tuple[tuple[int, int], ...]) -> float:
    """Least cost of a count as a sum of parts (size, cost), each used any number of times; else infinite."""
    costs: list[float] = [0.0]
    for total in range(1, count + 1):
        costs.append(min((costs[total - m] + c for m, c in parts if m <= total), default=inf))
    return costs[count]


@lru_cache(maxsize=KEPT)
def _fewest(
    free: tuple[tuple[int, int], ...], fixed: tuple[tuple[int, int], ...], counts: tuple[int, ...]
) -> float:
    """Fewest tokens for orbits that fill counts.

    Free positions are (multiplicity, tokens), fixed ones (multiplicity, how many).
    """
    if not counts:
        return 0.0
    count, rest = counts[-1], counts[:-1]
    best = inf
    for used in uses(count, fixed):
        left = count - sum(u * m for u, (m, _) in zip(used, fixed, strict=True))
        if left < 0:
            continue
        own = _cheapest_sum(left, free) + orbit_tokens(0) * sum(used)
        if own < best:
            remaining = tuple((m, n - u) for u, (m, n) in zip(used, fixed, strict=True))
            best = min(best, own + _fewest(free, remaining, rest))
    return best


@lru_cache(maxsize=KEPT)
def fewest_tokens(
    number: int, counts: tuple[int, ...], taken: frozenset[int] = frozenset(), first: int = 0, left: int = 0
) -> float:
    """Fewest tokens of the orbits language for orbits that fill these counts; infinite if none do.

    Args:
        number: space group.
        counts: of elements not begun, sorted.
        taken: indices of fixed positions in use.
        first: smallest Wyckoff index that the element at hand may still take (orbits stand in order).
        left: atoms of the element at hand still to place.
    """
    free: dict[int, int] = {}  # multiplicity -> tokens
    free_here: dict[int, int] = {}
    fixed: Counter[int] = Counter()
    fixed_here: Counter[int] = Counter()
    for index, position in enumerate(space_groups.get(number).wyckoff):
        size, cost = position.multiplicity, orbit_tokens(len(position.free))
        if position.free:
            free[size] = min(cost, free.get(size, cost))
            if index >= first:
                free_here[size] = min(cost, free_here.get(size, cost))
        elif index not in taken:
            fixed[size] += 1
            fixed_here[size] += index >= first
    parts, here = tuple(sorted(free_here.items())), tuple(sorted(fixed_here.items()))
    best = inf
    for used in uses(left, here):
        rest = left - sum(u * m for u, (m, _) in zip(used, here, strict=True))
        if rest < 0:
            continue
        own = _cheapest_sum(rest, parts) + orbit_tokens(0) * sum(used)
        if own < best:
            spent = {m: u for u, (m, _) in zip(used, here, strict=True)}
            others = tuple(sorted((m, n - spent[m]) for m, n in fixed.items()))
            best = min(best, own + _fewest(tuple(sorted(free.items())), others, counts))
    return best


def frame_tokens(number: int, n_elements: int) -> int:
    """Tokens of a text of the orbits language that are not its orbits': head, cell and end."""
    return 1 + 3 * n_elements + 1 + 2 * len(space_groups.get(number).free_cell) + 1


def may_outgrow(counts: Iterable[int], context: int) -> bool:
    """Whether a cell with these counts can be written in more tokens than the context holds, in any group."""
    counts = tuple(counts)
    return frame_tokens(1, len(counts)) + orbit_tokens(3) * sum(counts) > context


def groups_within(counts: tuple[int, ...], context: int | None) -> tuple[int, ...]:
    """Numbers of the groups that can hold these counts (sorted) in a text no longer than the context."""
    found = groups_for(counts)
    if context is None or not may_outgrow(counts, context):
        return found
    return tuple(n for n in found if frame_tokens(n, len(counts)) + fewest_tokens(n, counts) <= context)


def can_be_written(counts: tuple[int, ...], context: int, number: int | None = None) -> bool:
    """Whether some text with these counts (sorted) is no longer than the context.

    Args:
        counts: of a cell.
        context: tokens.
        number: of the space group; None for any.
    """
    if not may_outgrow(counts, context):
        return True
    # The more symmetry, the fewer tokens, so that the last groups answer soonest.
    asked = reversed(groups_for(counts)) if number is None else (number,)
    return any(frame_tokens(n, len(counts)) + fewest_tokens(n, counts) <= context for n in asked)


class State(Protocol):
    """What the automata of both languages have in common."""

    def advance(self, token: int) -> int:
        """Take a token; see `decode.RowState`."""
        ...

    def settle(self) -> None:
        """Hold on to all that has been taken so far."""
        ...


AnyState = TypeVar("AnyState", bound=State)


def behind(state: AnyState, prompt: Iterable[int]) -> AnyState:
    """A state led through a prompt, of which nothing is taken back.

    Raises:
        InputError: the prompt breaks the rules.
    """
    for token in prompt:
        state.advance(token)
        state.settle()
    return state


def rules(
    language: str,
    composition: Iterable[tuple[str, int]] | None = None,
    space_group: int | None = None,
    constraints: str = "full",
    context: int | None = None,
    *,
    wanted: Wanted | None = None,
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
        from crystallm.grammar_cif import CifRules  # it builds on the core above

        return CifRules(constraints, counts, space_group, wanted=wanted)
    from crystallm.grammar_orbits import OrbitsRules

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
