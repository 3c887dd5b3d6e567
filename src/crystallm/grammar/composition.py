"""Which compositions are allowed for a chemical system or a space group.

Two constraints are possible: a chemical system, of whose elements all must occur or only some, and a space
group that must be able to hold the cell. Elements come by rising electronegativity, so an element that must
occur cannot be skipped. After each count the group can hold the composition so far; the general position
takes any further elements, so every prefix can be completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from crystallm.crystallography import elements, wyckoff_assignment

MAX_ATOMS = 1_000
"""Most atoms of a cell: open collections hold up to 336 in the primitive cell, 3,200 texts up to 208 in the
conventional one."""
MAX_ELEMENTS = 8
"""Most elements of a composition, as in 47,335 structures of open collections."""


@dataclass(frozen=True, slots=True)
class CompositionConstraint:
    """A constraint on a composition that is left to the network.

    Attributes:
        elements: allowed elements, by rising electronegativity; None for any.
        every: whether each of them must occur.
        group: number of the space group that must be able to hold the cell; None for any.
        max_atoms: of the cell.
    """

    elements: tuple[str, ...] | None = None
    every: bool = True
    group: int | None = None
    max_atoms: int = MAX_ATOMS

    def following(self, composition: Iterable[str]) -> tuple[str, ...]:
        """Return the elements that may follow those of a composition, by rising electronegativity."""
        able = _order() if self.elements is None else self.elements
        present = list(composition)
        if present:
            rank = _rank()
            last = max(rank[symbol] for symbol in present)
            able = tuple(symbol for symbol in able if rank[symbol] > last)
        return able[:1] if self._all_needed else able

    def may_end(self, composition: Iterable[str]) -> bool:
        """Return whether a composition has all elements that must occur."""
        present = set(composition)
        return bool(present) and not (self._all_needed and set(self.elements or ()) - present)

    def counts(self, composition: Mapping[str, int], symbol: str) -> tuple[int, ...]:
        """Return the counts that an element may have beside those of the others, ascending."""
        others = {s: n for s, n in composition.items() if s != symbol}
        missing = len(set(self.elements or ()) - {*others, symbol}) if self._all_needed else 0
        if self.group is None:
            return _up_to(self.max_atoms - sum(others.values()) - missing)
        free, _ = wyckoff_assignment.position_counts(self.group)
        most = self.max_atoms - sum(others.values()) - missing * free[0]
        return _counts(self.group, tuple(sorted(others.values())), most)

    @property
    def _all_needed(self) -> bool:
        return self.every and self.elements is not None


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def _up_to(most: int) -> tuple[int, ...]:
    return tuple(range(1, most + 1))


@lru_cache(maxsize=wyckoff_assignment.KEPT)
def _counts(number: int, others: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Return the counts that a group can hold beside others (sorted)."""
    return tuple(n for n in range(1, most + 1) if wyckoff_assignment.can_hold(number, (*others, n)))


@cache
def _order() -> tuple[str, ...]:
    return tuple(elements.electronegativity_order(elements.symbols()))


@cache
def _rank() -> dict[str, int]:
    return {symbol: rank for rank, symbol in enumerate(_order())}
