"""The grammar of orbits sequences with a fixed part: a template structure with atoms missing.

The fixed orbits are in every sequence; others come between them while the composition has atoms left. Cell
and coordinates are forced where they are fixed too. A position is allowed only if the missing atoms still
fit beside all that is fixed, so every choice can be completed.

Does not depend on structures: `generation.completion` makes a `FixedPart` of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from crystallm.crystallography import formula, space_groups, wyckoff_assignment
from crystallm.errors import InputError
from crystallm.grammar.orbits import token_options
from crystallm.grammar.orbits.state import OrbitsGrammar, OrbitsGrammarState
from crystallm.orbits import vocabulary

MORE_UNITS = ": request more formula units"
"""The remedy where the number is not known."""


@dataclass(frozen=True)
class FixedPart:
    """The fixed part of a crystal.

    Attributes:
        composition: (element, count in the conventional cell) of the whole, in the order of the language.
        space_group: number.
        orbits: element, Wyckoff index and coordinates (thousandths) of each fixed orbit, in the order of the
            language; None for coordinates that are left to the network.
        cell: as in `orbits.Description`; None if it is left to the network.

    Raises:
        InputError: the fixed orbits hold more of an element than the whole, or the rest fits no positions.
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
                f"the fixed part holds {-left[short[0]]} {atoms} of {short[0]} more than the whole cell"
                f"{MORE_UNITS}"
            )
        if not any(left.values()):
            raise InputError("nothing is missing: the fixed part has all atoms of the formula")
        free, fixed = wyckoff_assignment.position_counts(self.space_group)
        taken = Counter(group.wyckoff[i].multiplicity for i in self.taken)
        open_ = tuple((m, n - taken[m]) for m, n in fixed)
        if not wyckoff_assignment.fits(free, open_, tuple(sorted(n for n in left.values() if n))):
            rest = formula.short(left)
            raise InputError(
                f"{rest} cannot be added to the fixed part: {group.symbol} has no positions for them"
            )

    @property
    def missing(self) -> dict[str, int]:
        """Missing atoms of each element."""
        wyckoff = space_groups.get(self.space_group).wyckoff
        left = dict(self.composition)
        for symbol, index, _ in self.orbits:
            left[symbol] = left.get(symbol, 0) - wyckoff[index].multiplicity
        return left

    @property
    def taken(self) -> frozenset[int]:
        """Indices of the positions without free coordinates in use: each has room for one orbit."""
        wyckoff = space_groups.get(self.space_group).wyckoff
        return frozenset(index for _, index, _ in self.orbits if not wyckoff[index].free)


class FixedPartState(OrbitsGrammarState):
    """State of a sequence with a fixed part.

    Args:
        context: tokens that the sequence may have; None for any number.
    """

    def __init__(self, fixed: FixedPart, context: int | None = None) -> None:
        counts = dict(fixed.composition)
        super().__init__(OrbitsGrammar("full", counts, fixed.space_group, context=context))
        self._fixed = fixed

    def _label_options(self) -> Sequence[int]:
        number, symbol = self._fixed.space_group, self.placed[-1].element
        wyckoff = space_groups.get(number).wyckoff
        placed = [orbit.index for orbit in self.placed[:-1] if orbit.element == symbol]
        needed = self._needed(symbol, placed)
        left = self._left[symbol] - sum(wyckoff[i].multiplicity for i in needed)
        if not left:
            return token_options.labels(number, tuple(needed[:1]))
        first = placed[-1] if placed else 0
        later = self._missing_later(symbol)
        # Fixed orbits that come later keep their positions.
        taken = self._taken | self._fixed.taken
        fitting = wyckoff_assignment.labels_allowed(number, taken, first, left, later)
        if needed:
            next_fixed = needed[0]
            after = wyckoff_assignment.labels_allowed(number, taken, max(first, next_fixed), left, later)
            may_be_next = bool(after) or next_fixed in fitting
            fitting = (*(i for i in fitting if i < next_fixed), *([next_fixed] if may_be_next else []))
        return token_options.labels(number, tuple(fitting))

    def _needed(self, symbol: str, placed: Sequence[int]) -> list[int]:
        """Return the indices of the fixed orbits of an element that are still to come, sorted."""
        left = Counter(index for name, index, _ in self._fixed.orbits if name == symbol)
        left.subtract(Counter(placed))
        return sorted(index for index, n in left.items() for _ in range(max(n, 0)))

    def _missing_later(self, symbol: str) -> tuple[int, ...]:
        """Return the numbers of missing atoms of the elements after one, sorted."""
        names = [name for name, _ in self._fixed.composition]
        later = names[names.index(symbol) + 1 :]
        return tuple(sorted(n for name, n in self._fixed.missing.items() if n and name in later))

    def _tens_options(self) -> Sequence[int]:
        if self._fixed.cell is None:
            return super()._tens_options()
        position = len(self.cell)
        first, tens = token_options.tens_of(self._known_group().free_cell[position])
        return token_options.alone(first + self._fixed.cell[position] // 10 - tens[0])

    def _rest_options(self) -> Sequence[int]:
        if self._fixed.cell is None:
            return super()._rest_options()
        return token_options.alone(vocabulary.families().rest + self._fixed.cell[len(self.cell)] % 10)

    def _coarse_options(self) -> Sequence[int]:
        options = super()._coarse_options()
        due, must = self._due()
        if due is None:
            return options
        value = due[len(self.placed[self._orbit].values)]
        return self._limited(options, vocabulary.families().coarse + value // 10, must=must)

    def _fine_options(self) -> Sequence[int]:
        options = super()._fine_options()
        due, must = self._due()
        value = None if due is None else due[len(self.placed[self._orbit].values)]
        if value is None or self._pending // 10 != value // 10:  # below the fixed value already
            return options
        return self._limited(options, vocabulary.families().fine + value % 10, must=must)

    @staticmethod
    def _limited(options: Sequence[int], token: int, *, must: bool) -> Sequence[int]:
        """Return the options up to the token of the fixed value, or that alone."""
        below = () if must else tuple(option for option in options if option <= token)
        return below or token_options.alone(token)

    def _due(self) -> tuple[tuple[int, ...] | None, bool]:
        """Return the coordinates of the next fixed orbit that may come here, and whether no other may.

        Orbits on one position stand in order, so a new one comes before the next fixed one or after all fixed
        ones. None where no coordinates are fixed, or the values so far are below them already.
        """
        orbit = self.placed[self._orbit]
        key = (orbit.element, orbit.index)
        run = [i for i, other in enumerate(self.placed) if (other.element, other.index) == key]
        due = sorted(
            values
            for *position, values in self._fixed.orbits
            if tuple(position) == key and values is not None
        )
        for i in run:
            values = tuple(self.placed[i].values)
            if i < self._orbit and values in due:
                due.remove(values)
        if not due:
            return None, False
        must = sum(i >= self._orbit for i in run) <= len(due)
        done = tuple(orbit.values)
        if done != due[0][: len(done)]:
            return None, False
        return due[0], must


@dataclass(frozen=True)
class FixedPartGrammar:
    """The grammar of a crystal with a fixed part."""

    fixed: FixedPart
    context: int | None = None

    def start(self, prompt: Sequence[int]) -> FixedPartState:
        """Return the state after a prompt. Raises InputError: the prompt breaks the rules."""
        return FixedPartState(self.fixed, self.context).read(prompt)
