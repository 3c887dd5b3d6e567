"""Rules of the orbits language for a crystal of which a part is known: a host whose guests are to be found.

The known orbits are in every text; others are written between them, as the composition has atoms left.
Where cell and coordinates are known too, they are written as they are. Everything else is as in
`grammar_orbits`, and a choice can be completed as there: what is left of the composition fits beside all
that is known, before a position is offered.

Refuses to know structures: `completion` makes a `Known` of one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crystallm.crystallography import formula, space_groups, wyckoff_assignment
from crystallm.errors import InputError
from crystallm.grammar import base
from crystallm.grammar.orbits import token_options
from crystallm.grammar.orbits.state import OrbitsGrammarState
from crystallm.orbits import vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    _Part = Callable[[int], int]


MORE_UNITS = ": ask for more formula units"
"""The mend where nobody knows how many."""


@dataclass(frozen=True)
class FixedPart:
    """What is known of a crystal.

    Attributes:
        composition: (element, count in the conventional cell) of the whole, in the order of the texts.
        space_group: number.
        orbits: element, Wyckoff index and coordinates (thousandths) of each known orbit, in the order of the
            texts; None for coordinates that are to be found.
        cell: as in `orbits.Description`; None if it is to be found.

    Raises:
        InputError: the known orbits hold more of an element than there is, or the rest fits no positions.
    """

    composition: tuple[tuple[str, int], ...]
    space_group: int
    orbits: tuple[tuple[str, int, tuple[int, ...] | None], ...]
    cell: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        group = space_groups.get(self.space_group)
        left = self.missing
        short = [symbol for symbol, n in left.items() if n < 0]
        if short:
            atoms = "atom" if left[short[0]] == -1 else "atoms"
            raise InputError(
                f"the known part holds {-left[short[0]]} {atoms} of {short[0]} more than the whole cell"
                f"{MORE_UNITS}"
            )
        if not any(left.values()):
            raise InputError("nothing is missing: the known part has all atoms of the formula")
        free, fixed = wyckoff_assignment.position_counts(self.space_group)
        taken = Counter(group.wyckoff[i].multiplicity for i in self.fixed)
        open_ = tuple((m, n - taken[m]) for m, n in fixed)
        if not wyckoff_assignment.fits(free, open_, tuple(sorted(n for n in left.values() if n))):
            rest = formula.short("".join(f"{symbol}{n}" for symbol, n in left.items() if n))
            raise InputError(
                f"{rest} cannot be added to the known part: {group.symbol} has no positions for so many atoms"
            )

    @property
    def missing(self) -> dict[str, int]:
        """Atoms of each element that are to be found."""
        wyckoff = space_groups.get(self.space_group).wyckoff
        left = dict(self.composition)
        for symbol, index, _ in self.orbits:
            left[symbol] = left.get(symbol, 0) - wyckoff[index].multiplicity
        return left

    @property
    def fixed(self) -> frozenset[int]:
        """Indices of the known orbits' positions without free coordinates: no other orbit has room there."""
        wyckoff = space_groups.get(self.space_group).wyckoff
        return frozenset(index for _, index, _ in self.orbits if not wyckoff[index].free)


class KnownState(OrbitsGrammarState):
    """Where such a text stands.

    Args:
        known: what must be in it.
        context: tokens that the text may have; None for any number.
    """

    def __init__(self, known: FixedPart, context: int | None = None) -> None:
        super().__init__("full", dict(known.composition), known.space_group, context=context)
        self._known = known

    def _orbit_label(self, token: int | None) -> Sequence[int]:
        if token is not None:
            return super()._orbit_label(token)
        number, symbol = self._known.space_group, self.placed[-1].element
        wyckoff = space_groups.get(number).wyckoff
        written = [orbit.index for orbit in self.placed[:-1] if orbit.element == symbol]
        needed = self._needed(symbol, written)
        left = self._left[symbol] - sum(wyckoff[i].multiplicity for i in needed)
        if not left:
            return token_options.labels(number, tuple(needed[:1]))
        first = written[-1] if written else 0
        later = self._missing_later(symbol)
        # What is known and not yet written stands where it stands.
        taken = self._taken | self._known.fixed
        found = wyckoff_assignment.labels_allowed(number, taken, first, left, later)
        if needed:
            next_known = needed[0]
            behind = wyckoff_assignment.labels_allowed(number, taken, max(first, next_known), left, later)
            found = (*(i for i in found if i < next_known), *([next_known] if behind else []))
            if next_known in wyckoff_assignment.labels_allowed(number, taken, first, left, later):
                found = tuple(dict.fromkeys((*found, next_known)))
        return token_options.labels(number, tuple(found))

    def _needed(self, symbol: str, written: Sequence[int]) -> list[int]:
        """Indices of the known orbits of an element that are not written yet, sorted."""
        left = Counter(index for name, index, _ in self._known.orbits if name == symbol)
        left.subtract(Counter(written))
        return sorted(index for index, n in left.items() for _ in range(max(n, 0)))

    def _missing_later(self, symbol: str) -> tuple[int, ...]:
        """What is to be found of the elements behind one, sorted."""
        names = [name for name, _ in self._known.composition]
        behind = names[names.index(symbol) + 1 :]
        return tuple(sorted(n for name, n in self._known.missing.items() if n and name in behind))

    def _tens_options(self) -> Sequence[int]:
        if self._known.cell is None:
            return super()._tens_options()
        place = len(self.cell)
        first, written = token_options.tens_of(space_groups.get(self._known.space_group).free_cell[place])
        return token_options.alone(first + self._known.cell[place] // 10 - written[0])

    def _rest(self, token: int | None) -> Sequence[int]:
        if token is not None or self._known.cell is None:
            return super()._rest(token)
        return token_options.alone(vocabulary.families().rest + self._known.cell[len(self.cell)] % 10)

    def _coarse(self, token: int | None) -> Sequence[int]:
        found = super()._coarse(token)
        if token is not None:
            return found
        return self._within(found, vocabulary.families().coarse, lambda value: value // 10)

    def _fine(self, token: int | None) -> Sequence[int]:
        if token is not None:
            return super()._fine(token)
        due, must = self._due()
        done = len(self.placed[self._orbit].values)
        if due is not None and self._pending // 10 != due[done] // 10:
            due = None  # below the known one already
        found = super()._fine(None)
        if due is None:
            return found
        return self._limited(found, vocabulary.families().fine, due[done] % 10, must=must)

    def _within(self, found: Sequence[int], first: int, part: _Part) -> Sequence[int]:
        due, must = self._due()
        if due is None:
            return found
        return self._limited(found, first, part(due[len(self.placed[self._orbit].values)]), must=must)

    @staticmethod
    def _limited(found: Sequence[int], first: int, digit: int, *, must: bool) -> Sequence[int]:
        """Options no larger than the known digit, or that alone."""
        below = () if must else tuple(token for token in found if token <= first + digit)
        return below or token_options.alone(first + digit)

    def _due(self) -> tuple[tuple[int, ...] | None, bool]:
        """Coordinates of the next known orbit that may be written here, and whether no other may.

        Orbits on one position stand in order, so what is new stands before the next known one or is behind
        all known ones. None where nothing is known, or what is written is below that already.
        """
        orbit = self.placed[self._orbit]
        key = (orbit.element, orbit.index)
        run = [i for i, other in enumerate(self.placed) if (other.element, other.index) == key]
        known = sorted(
            values for *where, values in self._known.orbits if tuple(where) == key and values is not None
        )
        for i in run:
            values = tuple(self.placed[i].values)
            if i < self._orbit and values in known:
                known.remove(values)
        if not known:
            return None, False
        must = sum(i >= self._orbit for i in run) <= len(known)
        done = tuple(orbit.values)
        if done != known[0][: len(done)]:
            return None, False
        return known[0], must


@dataclass(frozen=True)
class FixedPartGrammar:
    """Rules for a crystal of which a part is known, for `decode`."""

    known: FixedPart
    context: int | None = None

    def start(self, prompt: Sequence[int]) -> KnownState:
        """The state behind a prompt.

        Raises:
            InputError: the prompt breaks the rules.
        """
        return base.behind(KnownState(self.known, self.context), prompt)
