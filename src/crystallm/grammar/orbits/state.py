"""The grammar of orbits sequences: allowed tokens from `<crystal>` to `<end>`.

Every allowed choice can be completed to a crystal with the composition requested. Atoms that are too close
are resampled. So is a crystal in which spglib finds another space group than the one encoded, or with
implausible bonds: first the coordinates (for bonds from the first orbit on that has them), then the cell,
then the choice of Wyckoff positions, at last the group if it was not requested. Each is retried a bounded
number of times, and at most `base.MAX_BACKTRACKED` tokens are resampled in all.

Does not depend on networks, probabilities or structures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from crystallm.crystallography import cells, elements, wyckoff_assignment
from crystallm.geometry import contacts
from crystallm.grammar import base, text_length
from crystallm.grammar.orbits import coordinates, token_options
from crystallm.grammar.orbits.coordinate_state import OrbitsCoordinateState, PlacedOrbit
from crystallm.orbits import description, vocabulary

RETRIES = (base.ORBIT_RETRIES, base.CELL_RETRIES, base.WYCKOFF_RETRIES, base.GROUP_RETRIES)
"""Of the coordinates of one orbit; of cell, Wyckoff positions and group, each with all after it."""

_ORBIT, _CELL, _WYCKOFF, _GROUP = range(4)


class OrbitsGrammarState(OrbitsCoordinateState):
    """State of an orbits sequence: elements and positions of the orbits, the cell, and backtracking."""

    def __init__(self, options: base.GrammarOptions) -> None:
        if options.group is not None:  # it is never resampled, the orbits are instead
            orbit, cell, wyckoff, group = options.retries
            options = replace(options, retries=(orbit, cell, wyckoff + group, 0))
        super().__init__(options)
        self.cell: list[int] = []
        self._left: dict[str, int] = {}  # atoms of each element still to place
        self._taken: frozenset[int] = frozenset()  # fixed positions in use
        self._n_strays = 0  # crystals of these orbits that had another group
        self._is_tight = False  # whether the rest may outgrow the context
        self._cell_start = 0  # tokens before the cell

    def _begin_orbits(self) -> None:
        self._is_tight = self._context is not None and text_length.may_outgrow(
            self.composition.values(), self._context
        )
        self._left = dict(self.composition)
        self._taken = frozenset()
        self._n_strays = 0
        self.placed.clear()
        self.cell.clear()
        self._next(self._orbit_options, self._take_orbit)

    # --- orbits: element and position ---

    def _orbit_options(self) -> Sequence[int]:
        """Return elements of the next orbit, and first tokens of the cell once the orbits may end."""
        ids = token_options.element_ids()
        if self.full:
            current = next((s for s, n in self._left.items() if n), None)
            return self._tens_options() if current is None else token_options.alone(ids[current])
        if len(self._taken) == len(self._known_group().wyckoff):
            return self._tens_options()  # no free position in this group, and all fixed ones are full
        symbols = [ids[s] for s in self.composition]
        return [*symbols, *self._tens_options()] if self.placed else symbols

    def _take_orbit(self, token: int) -> None:
        family = vocabulary.families()
        if token >= family.volume:
            self._take_tens(token)
            return
        self.placed.append(PlacedOrbit(elements.symbols()[token - family.element], -1))
        self._next(self._label_options, self._take_label)

    def _label_options(self) -> Sequence[int]:
        """Return labels of Wyckoff positions; orbits of an element follow each other, in order."""
        group, orbit = self._known_group(), self.placed[-1]
        if not self.full:
            free = tuple(i for i in range(len(group.wyckoff)) if i not in self._taken)
            return token_options.labels(group.number, free)
        same = len(self.placed) > 1 and self.placed[-2].element == orbit.element
        first = self.placed[-2].index if same else 0
        later = tuple(sorted(n for s, n in self._left.items() if n and s != orbit.element))
        fitting = wyckoff_assignment.labels_allowed(
            group.number, self._taken, first, self._left[orbit.element], later
        )
        if self._is_tight:
            fitting = tuple(i for i in fitting if self._has_tokens(i, later)) or fitting
        return token_options.labels(group.number, fitting)

    def _take_label(self, token: int) -> None:
        group, orbit = self._known_group(), self.placed[-1]
        orbit.index = token_options.label_ids(group.number).index(token)
        if not group.wyckoff[orbit.index].free:
            self._taken |= {orbit.index}
        self._left[orbit.element] -= group.wyckoff[orbit.index].multiplicity
        self._next(self._orbit_options, self._take_orbit)

    def _has_tokens(self, index: int, later: tuple[int, ...]) -> bool:
        """Return whether the context holds the rest if the next orbit takes this position."""
        group = self._known_group()
        position = group.wyckoff[index]
        # Orbits whose digits come later.
        pending = [position, *(group.wyckoff[o.index] for o in self.placed[:-1])]
        digits = sum(text_length.orbit_tokens(len(w.free)) - 2 for w in pending)
        left = self._left[self.placed[-1].element] - position.multiplicity
        taken = self._taken if position.free else self._taken | {index}
        rest = text_length.fewest_tokens(group.number, later, taken, index, left)
        return self._n_tokens + 1 + digits + rest + 2 * len(group.free_cell) + 1 <= (self._context or 0)

    # --- cell ---

    def _begin_cell(self) -> None:
        self._next(self._tens_options, self._take_tens)

    def _tens_options(self) -> Sequence[int]:
        """Return first tokens of the next cell parameter."""
        name = self._known_group().free_cell[len(self.cell)]
        first, tens = token_options.tens_of(name)
        if not self.full or name not in ("a", "gamma"):
            return token_options.between(first, first + len(tens))
        if name == "a":
            steps = token_options.volume_steps(tuple(self.composition.items()))
            return token_options.tens_between(name, steps[0] // 10, steps[-1] // 10)
        # A cell has a volume if |alpha - beta| < gamma < alpha + beta and the three add up to less than 360.
        alpha, beta = self.cell[-2] / 10, self.cell[-1] / 10
        low, high = ceil(abs(alpha - beta) + 1), floor(min(alpha + beta, 360 - alpha - beta) - 2)
        return token_options.tens_between(name, low, high)

    def _take_tens(self, token: int) -> None:
        if not self.cell:
            self._cell_start = self._n_tokens - 1
        first, tens = token_options.tens_of(self._known_group().free_cell[len(self.cell)])
        self._pending = 10 * (token - first + tens[0])
        self._next(self._rest_options, self._take_rest)

    def _rest_options(self) -> Sequence[int]:
        """Return last tokens of a cell parameter."""
        family = vocabulary.families()
        if not self.full or self.cell:
            return token_options.between(family.rest, family.coarse)
        steps = token_options.volume_steps(tuple(self.composition.items()))
        low, end = max(steps.start - self._pending, 0), min(steps.stop - self._pending, 10)
        return token_options.between(family.rest + low, family.rest + end)

    def _take_rest(self, token: int) -> None:
        self.cell.append(self._pending + token - vocabulary.families().rest)
        if len(self.cell) < len(self._known_group().free_cell):
            self._begin_cell()
        elif not (self.full and self._fixed_meet() and self._restart()):
            self._orbit = -1
            self._next_orbit()

    def _fixed_meet(self) -> bool:
        """Place the atoms on fixed positions in the cell; return whether some are too close."""
        group = self._known_group()
        parameters = description.cell_parameters(self.composition.items(), group, self.cell)
        self._atoms = contacts.PlacedAtoms(cells.lattice(parameters))
        meet = False
        for orbit in self.placed:
            if not group.wyckoff[orbit.index].free:
                own = coordinates.fixed_points(group.number, orbit.index)
                meet = meet or self._atoms.meets(own, orbit.element)
                self._atoms.add(own, orbit.element)
        return meet

    # --- backtracking: each method removes tokens and returns True, or returns False ---

    def _repair(self) -> bool:
        if not any(self._retries[_CELL:]) or not self._backtrackable > 0:
            return False  # the check would change nothing
        fault = self._fault(self._known_group().number)
        if not fault:
            return False
        self._n_strays += fault == "group"
        if fault == "bonds":
            if self._restart_bonds():
                return True
            self._retries[_CELL] += 1  # bonds have retries of their own
        if self._n_strays > base.STRAY_CELL_RETRIES:  # most often the orbits have more symmetry in any cell
            return self._restart_orbits() or self._restart_group() or self._restart_cell()
        return self._restart()

    def _restart(self) -> bool:
        """Backtrack to the cell; where that did not help, to the orbits, then to the group."""
        return self._restart_cell() or self._restart_orbits() or self._restart_group()

    def _restart_bonds(self) -> bool:
        """Backtrack to the first orbit with implausible bonds to those before it or itself.

        Cures as many crystals as resampling all coordinates, for half of the tokens.
        """
        free = [i for i, orbit in enumerate(self.placed) if self._n_free(orbit)]
        n_fixed = len(self.placed) - len(free)  # these are placed before the others
        first = min(max(ends) for ends in self._atoms.implausible) - n_fixed
        if first < 0:
            return False  # the cell is to blame
        later = [self.placed[i] for i in free[first:]]
        if not self._backtrack(sum(2 * len(orbit.values) for orbit in later)):
            return False
        for orbit in later:
            orbit.values.clear()
        self._atoms.keep(n_fixed + first)
        self._retries[_ORBIT] = self._retry_budget[_ORBIT]
        self._orbit = free[first]
        self._begin_coordinate()
        return True

    def _restart_cell(self) -> bool:
        if not self._retry(_CELL, self._n_tokens - self._cell_start):
            return False
        self._retries[_ORBIT] = self._retry_budget[_ORBIT]
        self.cell.clear()
        for orbit in self.placed:
            orbit.values.clear()
        self._begin_cell()
        return True

    def _restart_orbits(self) -> bool:
        if not self._retry(_WYCKOFF, self._n_tokens - self._group_start - 1):
            return False
        self._retries[:_WYCKOFF] = self._retry_budget[_ORBIT], self._retry_budget[_CELL] // 2
        self._begin_orbits()
        return True

    def _restart_group(self) -> bool:
        if self._requested_group is not None:
            return False
        if not self._retry(_GROUP, self._n_tokens - self._group_start):
            return False
        self._retries[:_GROUP] = self._retry_budget[_ORBIT], self._retry_budget[_CELL] // 2, 1
        self.group = None
        self._next(self._element_options, self._take_element)
        return True


@dataclass(frozen=True)
class OrbitsGrammar(base.GrammarOptions):
    """The grammar of orbits sequences for one request."""

    retries: tuple[int, ...] = RETRIES
    bond_retries: int = base.ORBIT_BOND_RETRIES

    def start(self, prompt: Sequence[int]) -> OrbitsGrammarState:
        """Return the state after a prompt.

        Raises:
            InputError: the prompt breaks the grammar.
        """
        return OrbitsGrammarState(self).read(prompt)
